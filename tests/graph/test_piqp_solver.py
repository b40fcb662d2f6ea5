"""The program itself: derivatives in all of its data, and answers that a solver may not give."""

import pytest
import torch

from dograph.graph.minimise import minimise
from dograph.graph.piqp_solver import QuadraticMinimum


def parts(m, count, seed, tight=0.05):
    """H, c, lower, A and limits, of which some bind."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root, rows = normal(m, m), normal(count, m)
    rows = rows - rows.mean(dim=1, keepdim=True)  # so that even weights keep every limit
    limits = tight * (0.5 + torch.rand(count, generator=generator, dtype=torch.float64))
    lower = 0.5 / m * torch.rand(m, generator=generator, dtype=torch.float64)
    return root.T @ root, normal(m), lower, rows, limits


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("seed", range(0, 6, 2))
def test_derivatives_in_all_data(count, seed):
    given = [part.requires_grad_() for part in parts(6, count, seed)]
    assert torch.autograd.gradcheck(minimise, given, eps=1e-7, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["piqp", "cvxpylayers"])
@pytest.mark.parametrize("seed", range(3))
def test_upper_bounds(backend, seed):
    """Two backends and rows in place of bounds give the same minimum."""
    H, c, lower, rows, limits = parts(6, 2, seed, tight=0.2)
    upper = torch.tensor([0.1, 0.3, 1, 0.25, 0.2, 1], dtype=torch.float64).maximum(lower + 0.02)
    weights = minimise(H, c, lower, rows, limits, upper=upper, backend=backend)
    assert (weights <= upper + 1e-12).all() and (weights == upper).any()
    as_rows = torch.cat([rows, torch.eye(6, dtype=torch.float64)])
    expected = minimise(H, c, lower, as_rows, torch.cat([limits, upper]))
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_in_upper_bounds(seed):
    H, c, lower, rows, limits = parts(6, 1, seed, tight=0.3)
    upper = torch.tensor([0.1, 0.3, 1, 0.25, 0.2, 1], dtype=torch.float64).maximum(lower + 0.02)
    bounded = upper < 1

    def minimum(H, c, lower, limits, below):
        given = torch.ones_like(upper).masked_scatter(bounded, below)
        return minimise(H, c, lower, rows, limits, upper=given)

    given = [each.requires_grad_() for each in (H, c, lower, limits, upper[bounded].clone())]
    assert torch.autograd.gradcheck(minimum, given, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_weights_that_cannot_move():
    """A domain without text left, and bounds that leave one mixture alone."""
    H, c, lower, rows, limits = parts(4, 0, seed=0)
    upper = torch.tensor([0.0, 1, 1, 1], dtype=torch.float64)
    weights = minimise(H, c, 0 * lower, rows, limits, upper=upper)
    three = minimise(H[1:, 1:], c[1:], 0 * lower[1:])
    torch.testing.assert_close(weights[1:], three, rtol=0, atol=1e-9)
    assert weights[0] == 0
    corner = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64, requires_grad=True)
    found = minimise(H, c, 0 * lower, upper=corner)
    torch.testing.assert_close(found, corner.detach(), rtol=0, atol=1e-8)
    found[0].backward()
    assert corner.grad.isfinite().all()


def test_some_constraints_bind_in_these_problems():
    low = bound = 0
    for seed in range(6):
        H, c, lower, rows, limits = parts(6, 4, seed)
        weights = minimise(H, c, lower, rows, limits)
        low += int((weights == lower).sum())
        bound += int(((rows @ weights).abs() > limits - 1e-12).sum())
    assert low >= 2 and bound >= 2


def test_asymmetry_of_the_quadratic_form_does_not_count():
    H, c, lower, rows, limits = parts(5, 2, seed=1)
    skewed = H + torch.triu(torch.ones(5, 5), 1) - torch.tril(torch.ones(5, 5), -1)
    weights = minimise(H, c, lower, rows, limits)
    torch.testing.assert_close(minimise(skewed, c, lower, rows, limits), weights)


def test_a_program_without_feasible_weights_is_refused():
    H, c, lower, rows, _ = parts(4, 1, seed=0)
    rows = torch.ones_like(rows)  # Σ w = 1 is above the limit
    with pytest.raises(ArithmeticError, match="breaks a constraint"):
        minimise(H, c, lower, rows, torch.tensor([0.5], dtype=torch.float64))


def test_it_can_be_differentiated_once():
    H, c, lower, rows, limits = parts(4, 1, seed=0)
    upper = torch.ones_like(c)
    weights = QuadraticMinimum.apply(H.requires_grad_(), c, lower, upper, rows, limits)
    (first,) = torch.autograd.grad(weights[0], H, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()
