"""The published objectives without a solver, against their definitions in gradient space."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.graph.graph_solver import GraphSolver
from dograph.graph.kernel import gradient_kernel
from dograph.graph.objectives import alignment, robust


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 12), k=st.integers(1, 9), steps=st.integers(1, 6), seed=st.integers(0, 999))
def test_alignment_is_the_printed_fixed_point(m, k, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(m, k, generator=generator, dtype=torch.float64) + 0.5
    weights = torch.full((m,), 1 / m, dtype=torch.float64)
    for _ in range(steps):
        mixture = (weights @ means).expand_as(means)
        cosine = torch.cosine_similarity(means, mixture, dim=1).clamp(min=0)
        weights = cosine / cosine.sum()
    found = alignment(gradient_kernel(means), steps)
    torch.testing.assert_close(found, weights, rtol=1e-6, atol=1e-9)


def test_alignment_leaves_out_what_disagrees():
    K = gradient_kernel(torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.1]]))
    weights = alignment(K, 5)
    assert weights[2] == 0 and weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("means", [[[0.0], [0.0]], [[1.0], [-1.0]]], ids=["zero", "cancelling"])
def test_alignment_falls_back_to_uniform(means):
    assert alignment(gradient_kernel(torch.tensor(means)), 3).tolist() == [0.5, 0.5]


def test_robust_is_a_softmax_of_scaled_norms():
    K = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    expected = torch.exp(torch.tensor([1.0, 2.0, 3.0]).double() / (2 * 0.7))
    torch.testing.assert_close(robust(K, 0.7), expected / expected.sum())
    torch.testing.assert_close(robust(K, 0.7), robust(1e30 * K, 0.7))
    assert robust(K, 1e-4).tolist() == [0.0, 0.0, 1.0]
    assert robust(torch.zeros(2, 2)).tolist() == [0.5, 0.5]


def test_minimum_norm_is_no_longer_than_any_mixture():
    means = torch.randn(9, 5, generator=torch.manual_seed(0)).double() + 1
    solution = GraphSolver()(gradient_kernel(means), torch.zeros(9), beta=0.0)
    assert solution.ok
    shortest = (solution.weights @ means).norm()
    others = torch.distributions.Dirichlet(torch.full((9,), 0.3)).sample((2000,)).double()
    # The ridge allows a part in a million.
    assert shortest <= (others @ means).norm(dim=1).min() * (1 + 1e-6)
    assert shortest < 0.9 * means.mean(dim=0).norm()
