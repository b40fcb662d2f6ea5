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
    weights = QuadraticMinimum.apply(H.requires_grad_(), c, lower, rows, limits)
    (first,) = torch.autograd.grad(weights[0], H, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()
