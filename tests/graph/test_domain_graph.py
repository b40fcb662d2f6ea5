"""The graph's own identities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.graph.domain_graph import (
    DomainGraph,
    affinity,
    domain_graph,
    edge_differences,
    edge_rows,
    laplacian,
)
from dograph.graph.kernel import gradient_kernel, squared_distances


def graph_of(m, seed=0, k=6):
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(m, k, generator=generator, dtype=torch.float64)
    weights = torch.softmax(2 * torch.randn(m, generator=generator, dtype=torch.float64), 0)
    labels = torch.arange(m).repeat(3)
    return means, DomainGraph(
        kernel=gradient_kernel(means),
        distances=squared_distances(means),
        spread=torch.ones(m),
        counts=torch.bincount(labels),
        labels=labels,
        weights=weights,
    )


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 12), seed=st.integers(0, 999))
def test_mixture_norm_is_node_cost_less_dispersion(m, seed):
    means, graph = graph_of(m, seed)
    norm = (graph.weights @ means).square().sum()
    torch.testing.assert_close(graph.weights @ graph.kernel @ graph.weights, norm)
    node_cost = graph.kernel.diagonal() @ graph.weights
    dispersion = graph.weights @ graph.distances @ graph.weights / 2
    torch.testing.assert_close(node_cost - dispersion, norm)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 12), neighbours=st.integers(1, 12), seed=st.integers(0, 999))
def test_affinity_and_laplacian(m, neighbours, seed):
    _, graph = graph_of(m, seed)
    A = affinity(graph.distances, neighbours)
    assert torch.equal(A, A.T) and (A.diagonal() == 0).all()
    assert A.min() >= 0 and A.max() <= 1
    assert (A > 0).sum(dim=1).max() <= neighbours
    order = graph.distances.argsort(dim=1).argsort(dim=1)  # 0 is the node itself
    near = (order <= neighbours) & ~torch.eye(m).bool()
    assert torch.equal(A > 0, near & near.T)
    L = laplacian(A)
    w = graph.weights
    energy = (A * (w[:, None] - w[None]).square()).sum() / 2
    torch.testing.assert_close(w @ L @ w, energy)


def test_affinity_by_hand():
    # Points 0, 1, 3 on a line: D = 1, 9, 4, median 4; 3's nearest is 1, but not the reverse.
    D = squared_distances(torch.tensor([[0.0], [1.0], [3.0]]))
    assert affinity(D, 1)[0, 1].item() == pytest.approx(torch.tensor(-1 / 4).exp().item())
    assert (affinity(D, 1) > 0).sum() == 2
    everywhere = affinity(D, 2)
    assert everywhere[0, 2].item() == pytest.approx(torch.tensor(-9 / 4).exp().item())


def test_coinciding_domains_have_affinity_one():
    A = affinity(torch.zeros(3, 3), 2)
    assert torch.equal(A, 1 - torch.eye(3))


def test_edge_rows_are_a_root_of_the_laplacian():
    strengths = affinity(squared_distances(torch.randn(7, 3).double()), 2)
    rows = edge_rows(strengths)
    torch.testing.assert_close(rows.T @ rows, laplacian(strengths))
    assert len(rows) == (strengths > 0).sum() / 2
    assert torch.equal(edge_differences(strengths), rows.sign())


def test_the_graph_of_labelled_sketches():
    sketches = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    graph = domain_graph(sketches, torch.tensor([0, 1, 0]))
    assert graph.kernel.tolist() == [[4, 0], [0, 4]]
    assert graph.distances.tolist() == [[0, 8], [8, 0]]
    assert graph.counts.tolist() == [2, 1]
    # v = (1, 0), pooled 2/3: (2 · 1 + 1.5 · 2/3) / 3.5 and (0 + 1.5 · 2/3) / 2.5.
    torch.testing.assert_close(graph.spread, torch.tensor([3 / 3.5, 1 / 2.5]).double())
    torch.testing.assert_close(graph.weights, torch.tensor([2 / 3, 1 / 3]).double())
