"""Windows, contingencies, and clusters that keep who they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.graph.clusters import group_means
from dograph.graph.tracking import TrackedClusters
from dograph.graph.window import SketchWindow, contingency


def test_the_window_keeps_the_newest_in_order():
    window = SketchWindow(5)
    for start in (0, 3, 6):
        rows = torch.arange(start, start + 3).float()
        window.add(rows[:, None].expand(3, 2), rows.long() % 2)
    assert window.sketches[:, 0].tolist() == [4, 5, 6, 7, 8]
    assert window.domain.tolist() == [0, 1, 0, 1, 0]
    other = SketchWindow(5)
    other.load_state_dict(window.state_dict())
    assert torch.equal(other.sketches, window.sketches)
    with pytest.raises(UserError):
        SketchWindow(0)


def test_contingency_by_hand():
    # Source 0 has two sequences in cluster 0; source 1 one in each; source 2 none.
    labels, domain = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    found = contingency(labels, domain, 3, pseudo_counts=2.0)
    overall = [3 / 4, 1 / 4]
    expected = [
        [(2 + 2 * overall[0]) / 4, (1 + 2 * overall[0]) / 4, overall[0]],
        [(0 + 2 * overall[1]) / 4, (1 + 2 * overall[1]) / 4, overall[1]],
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_contingencies_are_distributions(n, domains, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator).unique(return_inverse=True)[1]
    domain = torch.randint(domains, (n,), generator=generator)
    found = contingency(labels, domain, domains)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(domains, dtype=torch.float64))
    assert found.min() > 0


def test_means_by_domain():
    values = torch.tensor([[1.0], [3.0], [5.0]])
    found = group_means(values, torch.tensor([0, 0, 2]), 3)
    assert found.flatten().tolist() == [2.0, 0.0, 5.0]


def cloud(centres, each=30, spread=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.cat(
        [
            centre + spread * torch.randn(each, len(centre), generator=generator)
            for centre in centres
        ]
    )


def test_clusters_keep_their_numbers_while_they_drift():
    """Centres travel far beyond their distances in all, but little between two updates."""
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [6.0, 6.0]])
    drift = torch.tensor([[0.5, 0.2], [0.4, -0.3], [-0.4, 0.3], [0.1, 0.6]])
    tracked = TrackedClusters(4, seed=0)
    first = None
    for step in range(40):
        labels, changes = tracked.update(cloud(centres + step * drift, seed=step))
        assert not changes
        assert tracked.numbers == [1, 2, 3, 4]
        of_cloud = [labels[30 * index : 30 * index + 30].unique().tolist() for index in range(4)]
        first = of_cloud if first is None else first
        assert of_cloud == first and all(len(found) == 1 for found in of_cloud)


def test_births_deaths_and_merges_are_told():
    tracked = TrackedClusters(3, seed=0)
    places = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    tracked.update(cloud(places))
    numbers = {
        place: tracked.numbers[int((tracked.centres - places[place]).square().sum(1).argmin())]
        for place in range(3)
    }
    # The third group is gone and another has come beyond the second: a death and a birth.
    _, changes = tracked.update(cloud(torch.tensor([[0.0, 0.0], [8.0, 0.0], [60.0, 0.0]])))
    assert sorted(map(str, changes)) == ["birth of 4", f"death of {numbers[2]}"]
    assert sorted(tracked.numbers) == sorted({numbers[0], numbers[1], 4})
    # All in one place, between the first two: one cluster is left, and takes another over.
    _, changes = tracked.update(torch.tensor([[3.0, 0.0]]).expand(90, 2))
    assert len(tracked.numbers) == 1
    (left,) = tracked.numbers
    assert left == numbers[0]  # all sequences are nearest to the first
    assert sorted(map(str, changes)) == sorted(f"death of {number}" for number in (numbers[1], 4))


def test_a_merge_names_where_it_went():
    tracked = TrackedClusters(2, seed=0)
    tracked.update(cloud(torch.tensor([[0.0, 0.0], [4.0, 0.0]])))
    # Both groups stay where they are, but a third, far away, takes one of the two centres.
    near = cloud(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), each=60)
    far = cloud(torch.tensor([[900.0, 0.0]]), each=30)
    _, changes = tracked.update(torch.cat([near, far]))
    kinds = {change.kind: change for change in changes}
    assert kinds["birth"].number == 3
    assert kinds["merge"].into in tracked.numbers
    assert kinds["merge"].number not in tracked.numbers


def test_tracking_continues_over_its_state():
    places = torch.tensor([[0.0, 0.0], [8.0, 0.0]])
    tracked, other = TrackedClusters(2, seed=0), TrackedClusters(2, seed=0)
    tracked.update(cloud(places))
    other.load_state_dict(tracked.state_dict())
    later = cloud(places + 0.2, seed=5)
    assert torch.equal(tracked.update(later)[0], other.update(later)[0])
    assert tracked.numbers == other.numbers


def test_fewer_sequences_than_clusters():
    tracked = TrackedClusters(5, seed=0)
    labels, _ = tracked.update(torch.tensor([[0.0], [9.0]]))
    assert sorted(labels.tolist()) == [0, 1]
    labels, _ = tracked.update(cloud(torch.arange(5.0)[:, None] * 9))
    assert labels.unique().tolist() == [0, 1, 2, 3, 4]
