"""DoGraph as published: weights of sequences from clusters of gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.graph.domain_graph import domain_graph
from dograph.mixers import BatchSignals, DoGraph

OBJECTIVES = ["uncertainty", "alignment", "variance", "robust"]


def signals(sketch, step=0):
    count = len(sketch)
    return BatchSignals(step, torch.arange(count) % 3, torch.ones(count), sketch)


def groups(centres, size, noise=0.01, seed=0):
    """(len(centres) * size, k) sketches around given centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.as_tensor(centres, dtype=torch.float32).repeat_interleave(size, dim=0)
    return centres + noise * torch.randn(centres.shape, generator=generator)


def ready(batch_size=12, **options):
    mixer = DoGraph(**options)
    mixer.setup(("a", "b", "c"), (1, 1, 1), batch_size)
    return mixer


@given(
    objective=st.sampled_from(OBJECTIVES),
    clusters=st.integers(1, 12),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_objective_gives_weights_on_the_simplex(objective, clusters, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    sketch = scale * torch.randn(12, 20, generator=generator)
    mixer = ready(clusters=clusters, objective=objective)
    weights = mixer.checked_loss_weights(signals(sketch))
    assert weights.shape == (12,)
    assert weights.min() >= 0
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)


def test_weights_are_shared_evenly_within_a_cluster():
    sketch = groups([[3.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0]], 4)
    mixer = ready(clusters=3, beta=0.0)
    weights = mixer.loss_weights(signals(sketch))
    assert torch.allclose(weights.view(3, 4).std(dim=1), torch.zeros(3).double())
    # Orthogonal means and β = 0: w_j ∝ 1 / ‖ḡ_j‖².
    expected = torch.tensor([1 / 9, 1.0, 1 / 4]).double()
    assert torch.allclose(weights.view(3, 4).sum(dim=1), expected / expected.sum(), atol=5e-3)


def test_the_batch_order_does_not_matter():
    sketch = groups([[3.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0]], 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    straight = ready(clusters=3).loss_weights(signals(sketch))
    permuted = ready(clusters=3).loss_weights(signals(sketch[order]))
    assert torch.allclose(permuted, straight[order], atol=1e-4)


def test_a_strong_anchor_is_uniform_training():
    sketch = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    weights = ready(clusters=5, anchor=1e6).loss_weights(signals(sketch))
    assert torch.allclose(weights, torch.full((12,), 1 / 12).double(), atol=1e-5)


def test_the_anchor_enlarges_the_effective_batch():
    sketch = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))

    def effective(anchor):
        weights = ready(clusters=5, anchor=anchor).loss_weights(signals(sketch))
        return 1 / weights.square().sum().item()

    sizes = [effective(anchor) for anchor in (0.0, 0.3, 1.0, 3.0)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0] + 0.5


def test_a_failed_solve_gives_uniform_sequence_weights_and_is_counted(caplog):
    mixer = ready(clusters=3)
    graph = domain_graph(torch.randn(12, 4), torch.arange(12) % 3)
    graph.kernel[0, 0] = float("nan")
    weights = mixer._cluster_weights(graph, step=5)
    assert torch.allclose(weights, torch.full((3,), 1 / 3).double())
    assert mixer.solver.failures == 1
    assert "step 5" in caplog.text


def test_a_window_clusters_several_batches_but_weighs_one():
    mixer = ready(batch_size=4, clusters=6, window=3)
    for step in range(4):
        sketch = torch.randn(4, 10, generator=torch.Generator().manual_seed(step))
        weights = mixer.checked_loss_weights(signals(sketch, step))
        assert weights.shape == (4,)
        assert weights.sum().item() == pytest.approx(1)
    assert mixer.graph.labels.numel() == 12


def test_a_windows_weights_tend_to_uniform_with_the_anchor_and_after_a_failed_solve():
    def weights(mixer, broken=False):
        for step in range(3):
            sketch = torch.randn(8, 10, generator=torch.Generator().manual_seed(step))
            if broken and step == 2:
                mixer.beta = float("nan")
            found = mixer.checked_loss_weights(signals(sketch, step))
        return found

    uniform = torch.full((8,), 1 / 8)
    anchored = weights(ready(batch_size=8, clusters=5, window=3, anchor=1e9))
    assert torch.allclose(anchored, uniform, atol=1e-6)
    failing = ready(batch_size=8, clusters=5, window=3)
    assert torch.allclose(weights(failing, broken=True), uniform)
    assert failing.solver.failures == 1


def test_setting_up_again_empties_the_window():
    mixer = ready(batch_size=4, clusters=3, window=3)
    mixer.checked_loss_weights(signals(torch.randn(4, 10)))
    mixer.setup(("a", "b", "c"), (1, 1, 1), 4)
    assert len(mixer.recent) == 0
    assert mixer.diagnostics() == {}


def test_the_window_survives_a_checkpoint():
    def sketch(step):
        return torch.randn(4, 10, generator=torch.Generator().manual_seed(step))

    mixer = ready(batch_size=4, clusters=6, window=3)
    for step in range(3):
        mixer.checked_loss_weights(signals(sketch(step), step))
    other = ready(batch_size=4, clusters=6, window=3)
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(
        other.checked_loss_weights(signals(sketch(3), 3)),
        mixer.checked_loss_weights(signals(sketch(3), 3)),
    )


def test_warmup_is_uniform():
    sketch = torch.randn(12, 20)
    mixer = ready(clusters=3, warmup=2)
    assert torch.equal(mixer.checked_loss_weights(signals(sketch, 1)), torch.full((12,), 1 / 12))
    assert not torch.equal(
        mixer.checked_loss_weights(signals(sketch, 2)), torch.full((12,), 1 / 12)
    )


def test_diagnostics_name_the_graph_and_the_solver():
    mixer = ready(clusters=3)
    assert mixer.diagnostics() == {}
    mixer.checked_loss_weights(signals(groups([[3.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0]], 4)))
    scalars = mixer.diagnostics()
    assert 1 <= scalars["effective_clusters"] <= 3
    assert 1 <= scalars["effective_sequences"] <= 12 + 1e-9
    assert scalars["solver_optimal"] == 1
    assert scalars["solver_milliseconds"] > 0
    assert scalars["mutual_information"] >= 0


def test_more_clusters_than_the_window_holds_are_refused():
    with pytest.raises(UserError, match=r"clusters is 13.*window of 1.*12"):
        ready(clusters=13)
    ready(clusters=13, window=2)


@pytest.mark.parametrize(
    "options",
    [
        {"clusters": 0},
        {"window": 0},
        {"beta": -0.1},
        {"beta": float("nan")},
        {"tau": 0.0},
        {"anchor": -1.0},
        {"max_difference": -0.1},
        {"cluster_floor": 1.5},
        {"objective": "robust", "anchor": 1.0},
        {"objective": "alignment", "laplacian": 1.0},
    ],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(UserError):
        DoGraph(**options)
