"""The schedule's problem against another solver, finite differences, identities, bad inputs."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from graph_problems import schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.graph.domain_graph import edge_rows
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver

DIRECTION = torch.tensor([0.3, -1.0, 0.5, 0.8], dtype=torch.float64)


def independent(problem, edges, floor, kappa, lam, nu, delta):
    """The problem as `ScheduleSolver` prints it, by another solver."""
    b, R, root, prior = (part.numpy() for part in problem)
    alpha = cp.Variable(len(prior))
    relative = cp.multiply(alpha, 1 / prior)
    objective = -b @ alpha + kappa / 2 * cp.sum_squares(R @ (alpha - prior))
    objective += nu / 2 * cp.sum(cp.multiply(cp.square(alpha - prior), 1 / prior))
    constraints = [cp.sum(alpha) == 1, alpha >= floor * prior]
    if len(root):
        objective += lam / 2 * cp.sum_squares(root @ relative)
        if edges:
            constraints.append(cp.abs(np.sign(root) @ relative) <= delta)
    problem = cp.Problem(cp.Minimize(objective), constraints)
    accuracy = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
    problem.solve(solver=cp.CLARABEL, **accuracy)
    assert problem.status == cp.OPTIMAL, problem.status
    return torch.from_numpy(alpha.value)


@settings(max_examples=40, deadline=None)
@given(
    S=st.integers(2, 24),
    edges=st.booleans(),
    floor=st.sampled_from([0.0, 0.2]),
    kappa=st.floats(0, 3),
    lam=st.floats(0, 3),
    nu=st.floats(0.05, 3),
    delta=st.floats(0.02, 2),
    seed=st.integers(0, 10_000),
)
def test_agrees_with_an_independent_solver(S, edges, floor, kappa, lam, nu, delta, seed):
    problem = schedule(S, seed)
    scalars = {"kappa": kappa, "lam": lam, "nu": nu, "delta": delta}
    solution = ScheduleSolver(edges=edges, floor=floor)(problem, **scalars)
    assert solution.ok, solution.status
    expected = independent(problem, edges, floor, **scalars)
    torch.testing.assert_close(solution.weights, expected, rtol=0, atol=1e-5)
    assert (solution.weights - floor * problem.prior).min() >= -1e-12


def test_derivatives_agree_with_finite_differences():
    """In everything but the prior: its size is the floor's, which is not smooth."""
    problem, solver = schedule(4, seed=3), ScheduleSolver(floor=0.05)
    scalars = {"kappa": 0.7, "lam": 0.4, "nu": 0.3}
    inputs = {**problem._asdict()}
    inputs |= {name: torch.tensor(value).double() for name, value in scalars.items()}

    def value(given):
        parts = ScheduleProblem(*(given[name] for name in problem._fields))
        solution = solver(parts, **{name: given[name] for name in scalars})
        assert solution.ok, solution.status
        return solution.weights @ DIRECTION

    for name in inputs.keys() - {"prior"}:
        leaf = inputs[name].clone().requires_grad_(True)
        value({**inputs, name: leaf}).backward()
        step = 1e-4 * torch.randn(leaf.shape, generator=torch.manual_seed(1), dtype=torch.float64)
        if name == "laplacian_root":  # its signs say where the edges are
            step = step * inputs[name].abs()
        ahead = value({**inputs, name: inputs[name] + step})
        behind = value({**inputs, name: inputs[name] - step})
        found, expected = (leaf.grad * step).sum().item(), ((ahead - behind) / 2).item()
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-9), name
        assert leaf.grad.abs().max() > 0, name


def test_the_edges_limit_is_differentiable_too():
    problem, solver = schedule(4, seed=3), ScheduleSolver(edges=True, floor=0.0)

    def value(delta):
        return solver(problem, kappa=0.1, delta=delta).weights @ DIRECTION

    delta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value(delta).backward()
    expected = (value(0.3 + 1e-4) - value(0.3 - 1e-4)).item() / 2e-4
    assert delta.grad.item() == pytest.approx(expected, rel=1e-3) != 0


def test_without_influence_the_prior_stays():
    b, R, root, prior = schedule(6, seed=1)
    still = ScheduleProblem(0 * b, R, root, prior)
    for lam in (0.0, 2.0):
        kept = ScheduleSolver(edges=True)(still, kappa=0.0, lam=lam, nu=0.1, delta=0.1)
        torch.testing.assert_close(kept.weights, prior, atol=1e-9, rtol=0)


def test_the_stronger_the_pull_the_nearer_the_prior():
    problem, solver = schedule(6, seed=1), ScheduleSolver()
    distances = [
        (solver(problem, kappa=0.2, nu=nu).weights - problem.prior).abs().sum().item()
        for nu in (0.01, 0.1, 1.0, 100.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.02


def test_without_curvature_and_pull_only_the_most_aligned_is_above_the_floor():
    problem, floor = schedule(5, seed=2), 0.2
    weights = ScheduleSolver(floor=floor)(problem, kappa=0.0).weights
    expected = floor * problem.prior
    expected[problem.b.argmax()] += 1 - floor
    torch.testing.assert_close(weights, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("lam", [0.0, 3.0])
@pytest.mark.parametrize("nu", [0.0, 1.0])
def test_a_target_that_the_prior_matches_leaves_it(lam, nu):
    """It asks for nothing more."""
    b, R, root, prior = schedule(5, seed=4)
    at_prior = ScheduleProblem(0 * b, R, root, prior)
    weights = ScheduleSolver()(at_prior, kappa=1.0, lam=lam, nu=nu).weights
    torch.testing.assert_close(weights, prior, atol=1e-7, rtol=0)


def test_curvature_matches_the_targets_mixture():
    """b = K(τ − α_0) and κ = 1: the mixture of the target itself, where nothing else pulls."""
    _, R, root, prior = schedule(5, seed=4)
    target = torch.tensor([0.1, 0.3, 0.2, 0.35, 0.05], dtype=torch.float64)
    problem = ScheduleProblem(R.T @ R @ (target - prior), R, root, prior)
    weights = ScheduleSolver(floor=0.0)(problem, kappa=1.0).weights
    torch.testing.assert_close(weights, target, atol=1e-6, rtol=0)


def test_twins_share_what_one_would_get():
    """Two sources of one gradient, and the same two as one: the others get the same."""
    b, R, root, prior = schedule(3, seed=8)
    once = ScheduleSolver()(ScheduleProblem(b, R, root, prior), kappa=0.8, nu=0.2).weights
    twice = [0, 1, 2, 2]
    shared = prior[twice] * torch.tensor([1, 1, 0.5, 0.5])
    problem = ScheduleProblem(b[twice], R[:, twice], torch.zeros(0, 4), shared)
    found = ScheduleSolver()(problem, kappa=0.8, nu=0.2).weights
    expected = once[twice] * torch.tensor([1, 1, 0.5, 0.5])
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_no_difference_along_a_connected_graph_is_the_prior():
    b, R, _, prior = schedule(5, seed=4)
    connected = edge_rows(torch.ones(5, 5, dtype=torch.float64).fill_diagonal_(0))
    problem = ScheduleProblem(b, R, connected, prior)
    for solver, options in (
        (ScheduleSolver(edges=True), {"delta": 0.0}),
        (ScheduleSolver(), {"lam": 1e6}),
    ):
        found = solver(problem, **options)
        assert found.ok, found.status
        torch.testing.assert_close(found.weights, prior, atol=1e-5, rtol=0)


def test_permuting_sources_permutes_the_answer():
    b, R, root, prior = schedule(5, seed=5)
    solver, options = ScheduleSolver(edges=True), {"lam": 0.5, "delta": 0.3}
    plain = solver(ScheduleProblem(b, R, root, prior), **options).weights
    order = torch.tensor([3, 1, 4, 0, 2])
    permuted = ScheduleProblem(b[order], R[:, order], root[:, order], prior[order])
    found = solver(permuted, **options).weights
    torch.testing.assert_close(found, plain[order], atol=1e-7, rtol=0)


def test_terms_add_up_to_the_objective():
    problem, solver = schedule(4, seed=6), ScheduleSolver()
    alpha = solver(problem, kappa=0.6, lam=0.9, nu=0.4).weights
    b, R, root, prior = problem
    relative = alpha / prior
    assert solver.terms == pytest.approx(
        {
            "influence": -(b @ alpha).item(),
            "curvature": 0.3 * (R @ (alpha - prior)).square().sum().item(),
            "graph": 0.45 * (root @ relative).square().sum().item(),
            "prior": 0.2 * (prior * (relative - 1).square()).sum().item(),
        }
    )


@pytest.mark.parametrize(
    ("change", "ok"),
    [
        (lambda parts: parts.__setitem__(1, torch.zeros(2, 4)), True),  # a kernel of rank 0
        (lambda parts: parts.__setitem__(2, torch.zeros(0, 4)), True),  # no edge
        (lambda parts: parts.__setitem__(2, torch.zeros(4, 4)), True),  # edges that bind nothing
        (lambda parts: parts[3].mul_(20), False),  # a prior whose floor is above 1
        (lambda parts: parts[3][2].zero_(), False),  # a source without a prior
        (lambda parts: parts[0].fill_(torch.nan), False),
        (lambda parts: parts[1].fill_(torch.inf), False),
        (lambda parts: parts.__setitem__(0, torch.zeros(9)), False),  # of another size
    ],
)
@pytest.mark.parametrize("edges", [True, False])
def test_degenerate_inputs_give_weights_and_no_exception(change, ok, edges):
    solver, parts = ScheduleSolver(edges=edges), list(schedule(4, seed=7))
    change(parts)
    solution = solver(ScheduleProblem(*parts), lam=0.5)
    assert solution.ok == ok, solution.status
    assert solver.failures == (not ok)
    if ok:
        assert solution.weights.sum().item() == pytest.approx(1)
    else:
        torch.testing.assert_close(solution.weights, parts[3])
        assert solver.terms == {}


def test_one_source():
    one = torch.ones(1, dtype=torch.float64)
    problem = ScheduleProblem(one, one[None], torch.zeros(0, 1), one)
    solution = ScheduleSolver(edges=True)(problem)
    assert solution.ok, solution.status
    assert solution.weights.tolist() == [1.0]
