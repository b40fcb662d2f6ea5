"""The schedule's problem against another solver, finite differences, identities, bad inputs."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from graph_problems import schedule
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dograph.graph.domain_graph import edge_rows
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver
from dograph.mixers.doge import mirror_descent


def independent(problem, geometry, edges, floor, kappa, lam, mu, nu, delta):
    """The problem as `ScheduleSolver` prints it, in α and w, by another solver."""
    b, R, root, P, prior, previous = (part.numpy() for part in problem)
    alpha, w = cp.Variable(len(prior)), cp.Variable(len(b))
    relative = cp.multiply(w, 1 / (P @ prior))
    objective = -b @ w + kappa / 2 * cp.sum_squares(R @ w)
    if len(root):
        objective += lam / 2 * cp.sum_squares(root @ relative)
    objective += nu / 2 * cp.sum(cp.multiply(cp.square(alpha - prior), 1 / prior))
    if geometry == "euclidean":
        objective += mu / 2 * cp.sum_squares(alpha - previous)
    else:
        objective += mu * cp.sum(cp.kl_div(alpha, previous))
    constraints = [w == P @ alpha, cp.sum(alpha) == 1, alpha >= floor * prior]
    if edges and len(root):
        constraints.append(cp.abs(np.sign(root) @ relative) <= delta)
    problem = cp.Problem(cp.Minimize(objective), constraints)
    if geometry == "euclidean":
        # A fixed interval: by default OSQP adapts its steps by the clock, and may then fall short.
        accuracy = {"eps_abs": 1e-10, "eps_rel": 1e-10, "max_iter": 200_000}
        problem.solve(solver=cp.OSQP, polishing=True, adaptive_rho_interval=50, **accuracy)
    if problem.status != cp.OPTIMAL:  # OSQP knows no exponential cones, and has its limits
        problem.solve(solver=cp.SCS, eps=1e-9, max_iters=100_000)
    assert problem.status == cp.OPTIMAL, problem.status
    return torch.from_numpy(alpha.value)


@settings(max_examples=200, deadline=None)
@example(32, 2, True, 0.0, 0.0, 0.0, 2.0, 2.0, 0.0234375, 32)
@example(4, 5, False, 0.0, 0.0, 2.0, 0.125, 0.0, 1.0, 3)  # proximity far below the graph's term
@given(
    K=st.integers(2, 64),
    S=st.integers(2, 9),
    edges=st.booleans(),
    floor=st.sampled_from([0.0, 0.2]),
    kappa=st.floats(0, 3),
    lam=st.floats(0, 3),
    mu=st.floats(0.1, 3),
    nu=st.floats(0, 2),
    delta=st.floats(0.02, 2),
    seed=st.integers(0, 10_000),
)
def test_agrees_with_an_independent_solver(K, S, edges, floor, kappa, lam, mu, nu, delta, seed):
    problem = schedule(K, S, seed)
    scalars = {"kappa": kappa, "lam": lam, "mu": mu, "nu": nu, "delta": delta}
    solution = ScheduleSolver(edges=edges, floor=floor)(problem, **scalars)
    assert solution.ok, solution.status
    expected = independent(problem, "euclidean", edges, floor, **scalars)
    torch.testing.assert_close(solution.weights, expected, rtol=0, atol=1e-5)
    assert (solution.weights - floor * problem[4]).min() >= -1e-12


@settings(max_examples=15, deadline=None)
@given(
    K=st.integers(2, 16),
    S=st.integers(2, 6),
    edges=st.booleans(),
    mu=st.floats(0.2, 3),
    seed=st.integers(0, 10_000),
)
def test_entropic_steps_agree_with_an_independent_solver(K, S, edges, mu, seed):
    problem = schedule(K, S, seed)
    scalars = {"kappa": 0.5, "lam": 0.5, "mu": mu, "nu": 0.2, "delta": 0.3}
    solution = ScheduleSolver(edges=edges, geometry="entropic", floor=0.05)(problem, **scalars)
    assert solution.ok, solution.status
    expected = independent(problem, "entropic", edges, 0.05, **scalars)
    torch.testing.assert_close(solution.weights, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
def test_derivatives_agree_with_finite_differences(geometry):
    names = ("b", "R", "root", "P", "prior", "previous")
    inputs = dict(zip(names, schedule(5, 4, seed=3), strict=True))
    scalars = {"kappa": 0.7, "lam": 0.4, "mu": 1.3, "nu": 0.3}
    inputs |= {f"√{name}": torch.tensor(value).double().sqrt() for name, value in scalars.items()}
    solver = ScheduleSolver(geometry=geometry, floor=0.05)
    direction = torch.tensor([0.3, -1.0, 0.5, 0.8], dtype=torch.float64)

    def value(given):
        squares = {name: given[f"√{name}"] ** 2 for name in scalars}
        solution = solver(ScheduleProblem(*(given[name] for name in names)), **squares)
        assert solution.ok, solution.status
        return solution.weights @ direction

    for name in inputs:
        if name in ("root", "prior"):  # their signs are edges, their size the floor: not smooth
            continue
        leaf = inputs[name].clone().requires_grad_(True)
        value({**inputs, name: leaf}).backward()
        # The solver knows exponential cones to some 1e-7 only: larger steps stand out from that.
        size, noise = (1e-4, 2e-8) if geometry == "euclidean" else (4e-3, 1.5e-6)
        step = size * torch.randn(leaf.shape, generator=torch.manual_seed(1), dtype=torch.float64)
        with torch.no_grad():
            ahead = value({**inputs, name: inputs[name] + step})
            behind = value({**inputs, name: inputs[name] - step})
        expected = ((ahead - behind) / 2).item()
        found = (leaf.grad * step).sum().item()
        assert found == pytest.approx(expected, rel=2e-2, abs=noise), name


def test_the_laplacians_root_is_differentiable_too():
    inputs = list(schedule(5, 4, seed=3))
    solver = ScheduleSolver(floor=0.0)
    direction = torch.tensor([0.3, -1.0, 0.5, 0.8], dtype=torch.float64)

    def value(root):
        return solver(ScheduleProblem(*inputs[:2], root, *inputs[3:]), lam=2.0).weights @ direction

    root = inputs[2].clone().requires_grad_(True)
    value(root).backward()
    step = 1e-4 * inputs[2]
    expected = (value(inputs[2] + step) - value(inputs[2] - step)).item() / 2
    assert (root.grad * step).sum().item() == pytest.approx(expected, rel=1e-2)


def test_without_alignment_the_prior_stays_and_returns():
    b, R, root, P, prior, _previous = schedule(6, 4, seed=1)
    still = {"kappa": 0.0, "lam": 2.0, "mu": 1.0}
    kept = ScheduleSolver(edges=True)(
        ScheduleProblem(0 * b, R, root, P, prior, prior), **still, delta=0.1
    )
    torch.testing.assert_close(kept.weights, prior, atol=1e-6, rtol=0)
    weights = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    for _ in range(60):
        weights = ScheduleSolver()(
            ScheduleProblem(0 * b, R, root, P, prior, weights), kappa=0.0, nu=1.0
        ).weights
    torch.testing.assert_close(weights, prior, atol=1e-4, rtol=0)


def test_it_is_doges_update_under_the_named_settings():
    """κ = λ = ν = 0, every source a cluster of its own, entropic proximity."""
    _, R, root, _, prior, previous = schedule(4, 4, seed=2)
    scores = torch.tensor([0.3, 0.0, 0.1, 0.2], dtype=torch.float64)
    solver = ScheduleSolver(geometry="entropic", floor=0.0)
    found = solver(
        ScheduleProblem(scores, R, root, torch.eye(4), prior, previous), kappa=0.0, mu=0.25
    )
    assert found.ok, found.status
    expected = mirror_descent(previous, scores, mu=0.25, smoothing=0.0)
    torch.testing.assert_close(found.weights, expected, atol=1e-5, rtol=0)


def test_entropic_steps_do_not_freeze_without_a_floor():
    """DoGE's setting, 80 times over: a weight may fall to nothing, the others go on."""
    _, R, root, _, prior, weights = schedule(4, 4, seed=2)
    scores = torch.tensor([0.3, 0.0, 0.1, 0.2], dtype=torch.float64)
    solver = ScheduleSolver(geometry="entropic", floor=0.0)
    for _ in range(80):
        expected = mirror_descent(weights, scores, mu=0.5, smoothing=0.0)
        solution = solver(
            ScheduleProblem(scores, R, root, torch.eye(4), prior, weights), kappa=0.0, mu=0.5
        )
        assert solution.ok, solution.status
        torch.testing.assert_close(solution.weights, expected, atol=1e-4, rtol=0)
        weights = solution.weights
    assert weights[0] > 0.99


def test_no_difference_along_a_connected_graph_is_the_priors_cluster_shares():
    b, R, _, P, prior, previous = schedule(5, 4, seed=4)
    connected = torch.ones(5, 5, dtype=torch.float64).fill_diagonal_(0)
    solver = ScheduleSolver(edges=True)
    found = solver(ScheduleProblem(b, R, edge_rows(connected), P, prior, previous), delta=0.0)
    assert found.ok, found.status
    torch.testing.assert_close(P @ found.weights, P @ prior, atol=1e-6, rtol=0)


def test_permuting_sources_or_clusters_permutes_the_answer():
    b, R, root, P, prior, previous = schedule(6, 5, seed=5)
    solver = ScheduleSolver(edges=True)
    options = {"lam": 0.5, "delta": 0.3}
    plain = solver(ScheduleProblem(b, R, root, P, prior, previous), **options).weights
    sources = torch.tensor([3, 1, 4, 0, 2])
    found = solver(
        ScheduleProblem(b, R, root, P[:, sources], prior[sources], previous[sources]), **options
    )
    torch.testing.assert_close(found.weights, plain[sources], atol=1e-7, rtol=0)
    clusters = torch.tensor([5, 0, 3, 1, 4, 2])
    found = solver(
        ScheduleProblem(
            b[clusters], R[:, clusters], root[:, clusters], P[clusters], prior, previous
        ),
        **options,
    )
    torch.testing.assert_close(found.weights, plain, atol=1e-7, rtol=0)


def test_terms_add_up_to_the_objective():
    problem = schedule(6, 4, seed=6)
    solver = ScheduleSolver()
    scalars = {"kappa": 0.6, "lam": 0.9, "mu": 1.1, "nu": 0.4}
    alpha = solver(problem, **scalars).weights
    b, R, root, P, prior, previous = problem
    w = P @ alpha
    assert solver.terms["alignment"] == pytest.approx(-(b @ w).item())
    assert solver.terms["curvature"] == pytest.approx(0.3 * (R @ w).square().sum().item())
    relative = w / (P @ prior)
    assert solver.terms["graph"] == pytest.approx(0.45 * (root @ relative).square().sum().item())
    moved = 0.55 * (alpha - previous).square().sum().item()
    assert solver.terms["proximity"] == pytest.approx(moved)
    assert solver.terms["prior"] > 0


def broken(change):
    parts = list(schedule(5, 3, seed=7))
    change(parts)
    return parts


@pytest.mark.parametrize(
    ("change", "ok"),
    [
        (lambda parts: parts.__setitem__(1, torch.zeros(2, 5)), True),  # a kernel of rank 0
        (lambda parts: parts.__setitem__(2, torch.zeros(0, 5)), True),  # no edge
        (lambda parts: parts.__setitem__(2, torch.zeros(4, 5)), True),  # edges that bind nothing
        (lambda parts: parts[4].mul_(20), False),  # a prior whose floor is above 1
        (lambda parts: parts[0].fill_(torch.nan), False),
        (lambda parts: parts[3].fill_(torch.inf), False),
        (lambda parts: parts[3][2].zero_(), False),  # a cluster that no source has
        (lambda parts: parts.__setitem__(0, torch.zeros(9)), False),  # of another size
    ],
)
@pytest.mark.parametrize("edges", [True, False])
def test_degenerate_inputs_give_weights_and_no_exception(change, ok, edges):
    solver = ScheduleSolver(edges=edges)
    parts = broken(change)
    solution = solver(ScheduleProblem(*parts), lam=0.5)
    assert solution.ok == ok, solution.status
    assert solution.weights.sum().item() == pytest.approx(1)
    assert solver.failures == (not ok)
    if not ok:
        torch.testing.assert_close(solution.weights, parts[5])


def test_one_source_and_one_cluster():
    one = torch.ones(1, dtype=torch.float64)
    solution = ScheduleSolver(edges=True)(
        ScheduleProblem(one, one[None], torch.zeros(0, 1), one[None], one, one)
    )
    assert solution.ok, solution.status
    assert solution.weights.tolist() == [1.0]
