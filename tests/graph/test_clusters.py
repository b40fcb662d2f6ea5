"""K-means domains: valid labels, means and spreads checked by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.graph.clusters import (
    cluster_counts,
    cluster_means,
    cluster_sequences,
    cluster_spread,
    effective_number,
    group_means,
    mutual_information,
)

SKETCHES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [10.0, 10.0]])
LABELS = torch.tensor([0, 0, 0, 1])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20),
    k=st.integers(1, 6),
    clusters=st.integers(1, 12),
    distinct=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_labels_are_valid(n, k, clusters, distinct, seed):
    points = torch.randn(distinct, k, generator=torch.manual_seed(seed))
    chosen = torch.randint(distinct, (n,), generator=torch.manual_seed(seed))
    sketches = points[chosen]
    labels = cluster_sequences(sketches, clusters, seed)
    assert labels.shape == (n,) and labels.dtype == torch.int64
    found = labels.unique()
    assert found.tolist() == list(range(len(found)))
    assert len(found) == min(clusters, len(chosen.unique()))
    assert torch.equal(labels, cluster_sequences(sketches, clusters, seed))
    # Lloyd has converged: nobody is nearer to another cluster's mean.
    distance = torch.cdist(sketches.double(), cluster_means(sketches, labels))
    own = distance.gather(1, labels[:, None])[:, 0]
    assert (own <= distance.min(dim=1).values + 1e-6).all()


def test_separated_groups_are_found():
    centres = 100 * torch.eye(4)
    truth = torch.arange(4).repeat(6)
    sketches = centres[truth] + torch.randn(24, 4, generator=torch.manual_seed(0))
    labels = cluster_sequences(sketches, 4, seed=0)
    assert mutual_information(labels, truth) == pytest.approx(math.log(4))
    assert mutual_information(torch.zeros(24), truth) == pytest.approx(0)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="clusters is 0"):
        cluster_sequences(SKETCHES, 0, seed=0)
    with pytest.raises(UserError, match="not finite"):
        cluster_sequences(torch.tensor([[1.0], [math.nan]]), 1, seed=0)


def test_means_and_counts_by_hand():
    assert cluster_means(SKETCHES, LABELS).tolist() == [[2.0, 0.0], [10.0, 10.0]]
    assert cluster_counts(LABELS).tolist() == [3, 1]


def test_spread_by_hand():
    # Squared distances 4, 0, 4 and 0: own 8/3 and 0, pooled 2.
    unshrunk = cluster_spread(SKETCHES, LABELS, pseudo_counts=0.0)
    torch.testing.assert_close(unshrunk, torch.tensor([8 / 3, 0.0]).double(), rtol=1e-6, atol=0)
    shrunk = cluster_spread(SKETCHES, LABELS)
    expected = torch.tensor([(8 + 3.0) / 4.5, 3.0 / 2.5]).double()
    torch.testing.assert_close(shrunk, expected, rtol=1e-6, atol=0)


def test_printed_spread_is_the_variance_of_squared_distances():
    own = torch.tensor([4.0, 0.0, 4.0]).var(correction=0).item()
    pooled = 3 * own / 4
    expected = torch.tensor([(3 * own + 1.5 * pooled) / 4.5, 1.5 * pooled / 2.5]).double()
    found = cluster_spread(SKETCHES, LABELS, form="printed")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_effective_number_between_one_and_all():
    assert effective_number(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_number(torch.full((7,), 1 / 7)) == pytest.approx(7, rel=1e-6)


def test_means_of_groups_of_which_one_is_empty():
    found = group_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3)
    assert found.flatten().tolist() == [2.0, 0.0, 5.0]
