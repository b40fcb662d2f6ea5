"""Invariant 8: the solver agrees with another solver and with finite differences."""

import copy
import pickle

import cvxpy as cp
import numpy as np
import pytest
import torch
from graph_problems import ALL_TERMS, instance
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.graph import piqp_solver
from dograph.graph.domain_graph import affinity, laplacian
from dograph.graph.graph_solver import GraphSolver
from dograph.graph.kernel import gradient_kernel, kernel_distances

FLOAT32_MEANS = torch.randn(40, 3, generator=torch.manual_seed(0))
COEFFICIENTS = {"beta": 0.3, "gamma": 0.2, "delta": 0.15, "nu": 0.5}


def independent(K, spread, counts, terms, floor, beta, gamma, delta, nu):
    """The problem as `GraphSolver` prints it, term by term, by OSQP; returns weights."""
    m = len(K)
    s = K.trace().item() / m
    w = cp.Variable(m)
    quadratic = (K + K.T).numpy() / (2 * s) + 1e-6 * np.eye(m)
    objective = cp.quad_form(w, cp.psd_wrap(quadratic)) + beta * spread.numpy() / s @ w
    A = affinity(kernel_distances(K), 3)
    constraints = [w >= floor / m, cp.sum(w) == 1]
    if terms["laplacian"]:
        objective += gamma * cp.quad_form(w, cp.psd_wrap(laplacian(A).numpy()))
    if terms["anchor"]:
        shares = (counts / counts.sum()).double().numpy()
        objective += nu * cp.sum(cp.multiply(cp.square(w - shares), 1 / shares))
    if terms["edges"]:
        constraints += [w[i] - w[j] <= delta for i, j in (A > 0).nonzero().tolist()]
    problem = cp.Problem(cp.Minimize(objective), constraints)
    # A fixed interval: by default OSQP adapts its steps by the clock, and may then fall short.
    accuracy = {"eps_abs": 1e-10, "eps_rel": 1e-10, "max_iter": 200_000}
    problem.solve(solver=cp.OSQP, polishing=True, adaptive_rho_interval=50, **accuracy)
    assert problem.status == cp.OPTIMAL, problem.status
    return torch.from_numpy(w.value)


@settings(max_examples=60, deadline=None)
@example(  # binding constraints that depend on each other: the polish must not be put off
    m=11,
    terms={"laplacian": False, "edges": True, "anchor": False},
    floor=0.0,
    beta=1 / 3,
    gamma=0.0,
    delta=0.4000963348131542,
    nu=0.0,
    seed=215,
)
@given(
    m=st.integers(2, 16),
    terms=st.fixed_dictionaries(dict.fromkeys(ALL_TERMS, st.booleans())),
    floor=st.sampled_from([0.0, 0.2]),
    beta=st.floats(0, 3),
    gamma=st.floats(0, 3),
    delta=st.floats(0.01, 1),
    nu=st.floats(0, 3),
    seed=st.integers(0, 10_000),
)
def test_agrees_with_an_independent_solver(m, terms, floor, beta, gamma, delta, nu, seed):
    K, spread, counts = instance(m, seed=seed)
    solver = GraphSolver(**terms, floor=floor)
    solution = solver(K, spread, counts, beta=beta, gamma=gamma, delta=delta, nu=nu)
    assert solution.ok, solution.status
    expected = independent(K, spread, counts, terms, floor, beta, gamma, delta, nu)
    torch.testing.assert_close(solution.weights, expected, rtol=0, atol=1e-6)
    assert solution.weights.min() >= floor / m - 1e-15
    assert solution.weights.sum().item() == pytest.approx(1, abs=1e-14)


def smooth_inputs():
    """A 4-node problem of all terms whose binding constraints stay put for small changes."""
    K, spread, counts = instance(4, seed=3, spread=0.3)
    A = torch.tensor([[0, 0.5, 0, 0.9], [0.5, 0, 0.7, 0], [0, 0.7, 0, 0], [0.9, 0, 0, 0]])
    values = {"K": K, "spread": spread, "counts": counts.double(), "affinity": A.double()}
    for name, value in COEFFICIENTS.items():
        values[name] = torch.tensor(value, dtype=torch.float64)
    return values


@pytest.mark.parametrize("name", ["K", "spread", "counts", "affinity", *COEFFICIENTS])
def test_derivative_against_finite_differences(name):
    solver, values = GraphSolver(**ALL_TERMS), smooth_inputs()
    direction = torch.tensor([1.0, -0.5, 2.0, 0.3], dtype=torch.float64)

    def value_at(step):
        changed = dict(values)
        changed[name] = values[name] + step
        K, spread, counts = (changed.pop(part) for part in ("K", "spread", "counts"))
        solution = solver(K, spread, counts, **changed)
        assert solution.ok, solution.status
        return direction @ solution.weights

    inner = torch.zeros_like(values[name]).requires_grad_()
    (found,) = torch.autograd.grad(value_at(inner), inner)
    size = 1e-4 * values[name].abs().max()
    # Only edges that are there have a derivative: a new one is a jump.
    entries = values[name] > 0 if name == "affinity" else torch.ones_like(values[name]).bool()
    for index in entries.nonzero().tolist():
        step = torch.zeros_like(values[name])
        step[tuple(index)] = size
        expected = (value_at(step) - value_at(-step)) / (2 * size)
        scale = found.abs().max()
        assert scale > 1e-6
        assert abs(found[tuple(index)] - expected) < 1e-4 * scale


@pytest.mark.parametrize("edges", [False, True])
def test_derivative_where_weights_are_zero(edges):
    K, spread, counts = instance(9, seed=1)
    solver = GraphSolver(edges=edges)

    def value(beta):
        return solver(K, spread, counts, beta=beta, delta=0.3).weights.square().sum()

    beta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert (solver(K, spread, beta=beta, delta=0.3).weights < 1e-9).any()
    (found,) = torch.autograd.grad(value(beta), beta)
    expected = (value(beta.detach() + 1e-4) - value(beta.detach() - 1e-4)) / 2e-4
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_derivative_of_many_edges():
    K, spread, _ = instance(26, k=60, seed=2, spread=0.1)
    solver, beta = GraphSolver(edges=True), torch.tensor(0.2, dtype=torch.float64)

    def value(at):
        return solver(K, spread, beta=at, delta=0.02).weights.square().sum()

    moving = beta.clone().requires_grad_()
    (found,) = torch.autograd.grad(value(moving), moving)
    expected = (value(beta + 1e-4) - value(beta - 1e-4)) / 2e-4
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_gradient_reaches_a_float32_kernel():
    means = torch.randn(5, 9, generator=torch.manual_seed(0)).requires_grad_()
    solution = GraphSolver()(means @ means.T, torch.ones(5))
    solution.weights[0].backward()
    assert means.grad is not None and torch.isfinite(means.grad).all() and means.grad.any()


def test_two_nodes_closed_form_of_the_minimum_norm():
    K = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    first = (1.0 - 0.5) / (2.0 + 1.0 - 2 * 0.5)
    weights = GraphSolver()(K, torch.ones(2), beta=0.0).weights
    # The ridge of 1e-6 moves the minimum by as much.
    torch.testing.assert_close(
        weights, torch.tensor([first, 1 - first]).double(), atol=1e-6, rtol=0
    )


def test_minimum_norm_is_optimal_by_kkt():
    K, spread, _ = instance(12, seed=5)
    weights = GraphSolver()(K, spread, beta=0.0).weights
    slope = 2 * (K / (K.trace() / 12) + 1e-6 * torch.eye(12)) @ weights
    multiplier = slope.min()
    assert (weights == 0).any() and (weights > 0.01).sum() > 1
    # Nodes with weight share one slope, and none without weight has a smaller one.
    torch.testing.assert_close(slope[weights > 0], multiplier.expand((weights > 0).sum()))


@pytest.mark.parametrize("beta", [1e4, 1e8])
def test_large_beta_takes_the_least_spread(beta):
    K, spread, _ = instance(7, seed=2)
    weights = GraphSolver()(K, spread, beta=beta).weights
    assert weights[spread.argmin()] == pytest.approx(1, abs=1e-9)


def test_uniform_training_is_a_minimum():
    # Clusters of one distribution: the mean's noise is σ²/n_j, and w_j = n_j/n is uniform training.
    counts = torch.tensor([1, 2, 5, 12])
    weights = GraphSolver()(torch.diag(7.0 / counts), torch.ones(4), beta=0.0).weights
    torch.testing.assert_close(weights, counts / 20.0, check_dtype=False, rtol=0, atol=1e-6)


@pytest.mark.parametrize("nu", [1e6, 1e10])
def test_large_nu_pulls_to_the_shares(nu):
    K, spread, counts = instance(11)
    weights = GraphSolver(anchor=True)(K, spread, counts, nu=nu).weights
    shares = (counts / counts.sum()).double()
    torch.testing.assert_close(weights, shares, rtol=0, atol=1e-5)


def test_equal_weights_where_the_graph_is_connected():
    K, spread, _ = instance(6)
    path = torch.diag(torch.ones(5), 1) + torch.diag(torch.ones(5), -1)
    solution = GraphSolver(edges=True)(K, spread, delta=0.0, affinity=path)
    assert solution.ok, solution.status
    torch.testing.assert_close(solution.weights, torch.full((6,), 1 / 6).double())
    free = GraphSolver(edges=True)(K, spread, delta=0.0, affinity=torch.zeros(6, 6)).weights
    torch.testing.assert_close(free, GraphSolver()(K, spread).weights, rtol=0, atol=1e-7)


@pytest.mark.parametrize("delta", [1.0, 1e6, float("inf")])
def test_wide_limits_bind_nothing(delta):
    K, spread, _ = instance(11, seed=1)
    solver, plain = GraphSolver(edges=True, floor=0.99), GraphSolver(floor=0.99)
    found = solver(K, spread, beta=1e8, delta=delta)
    assert found.ok, found.status
    torch.testing.assert_close(found.weights, plain(K, spread, beta=1e8).weights, rtol=0, atol=1e-9)


def test_weights_do_not_depend_on_the_gradients_unit():
    K, spread, counts = instance(8)
    solver = GraphSolver(**ALL_TERMS)
    plain, scaled = solver(K, spread, counts), solver(1e-14 * K, 1e-14 * spread, counts)
    torch.testing.assert_close(plain.weights, scaled.weights, rtol=0, atol=1e-8)


@pytest.mark.parametrize("terms", [{}, ALL_TERMS])
@pytest.mark.parametrize(
    "K",
    [
        torch.zeros(5, 5),
        torch.ones(5, 5),
        torch.full((1, 1), 3.0),
        torch.tensor([[0.0]]),
        gradient_kernel(torch.ones(1, 4).repeat(5, 1) * torch.tensor([[1.0], [1], [2], [2], [2]])),
        FLOAT32_MEANS @ FLOAT32_MEANS.T,
        torch.ones(5, 5) - 1e-5 * torch.eye(5),
    ],
    ids=["zero", "rank one", "one cluster", "one zero", "duplicates", "float32", "indefinite"],
)
def test_singular_kernels_are_solved(K, terms):
    m = len(K)
    K = K.clone().requires_grad_()
    solution = GraphSolver(**terms)(K, torch.ones(m), torch.ones(m), delta=0.5)
    assert solution.ok, solution.status
    assert solution.weights.sum().item() == pytest.approx(1) and solution.weights.min() >= 0
    solution.weights[0].backward()
    assert torch.isfinite(K.grad).all()


def test_duplicates_share_a_weight():
    K = gradient_kernel(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    weights = GraphSolver()(K, torch.zeros(3), beta=0.0).weights
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25, 0.25]).double(), rtol=0, atol=1e-6)


def test_failures_fall_back_and_are_counted():
    K, spread, counts = instance(4)
    solver = GraphSolver()
    broken = K.clone()
    broken[1, 2] = torch.nan
    solution = solver(broken, spread, counts)
    assert not solution.ok and solution.status.startswith("failed: ")
    torch.testing.assert_close(
        solution.weights, (counts / counts.sum()).double(), check_dtype=False
    )
    without = solver(K, spread * torch.inf)
    assert not without.ok and torch.equal(without.weights, torch.full((4,), 0.25).double())
    assert not solver(-K, spread).ok  # tr K < 0: no kernel
    indefinite = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert "semi-definite" in solver(indefinite, torch.ones(2)).status
    assert solver(K, spread).ok
    assert (solver.solves, solver.failures) == (5, 4)
    bounded = GraphSolver(edges=True)
    assert not bounded(K, spread, delta=torch.nan).ok
    assert not bounded(K, spread, delta=-0.1).ok


@pytest.mark.parametrize(
    "answer", [[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [1.5, -0.5, 0, 0], [np.nan] * 4]
)
def test_a_wrong_answer_is_a_failure(monkeypatch, answer):
    K, spread, counts = instance(4)
    wrong = np.array(answer)
    monkeypatch.setattr(piqp_solver, "solve", lambda _: (wrong, np.zeros(0), None))
    assert not GraphSolver()(K, spread, counts, beta=0.0).ok


def test_an_answer_depends_on_nothing_that_was_solved_before():
    K, spread, counts = instance(11, seed=4)
    first = GraphSolver(**ALL_TERMS)(K, spread, counts).weights
    used = GraphSolver(**ALL_TERMS)
    for seed in range(5):
        used(*instance(11, seed=seed), beta=2.0)
    assert torch.equal(used(K, spread, counts).weights, first)


def test_solver_copies_pickles_and_keeps_no_state():
    solver = GraphSolver(anchor=True, floor=0.1)
    expected = solver(*instance(5)).weights
    assert solver.state_dict() == {}
    for other in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert torch.equal(other(*instance(5)).weights, expected)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="floor is 1"):
        GraphSolver(floor=1.0)
    with pytest.raises(UserError, match="neighbours is 0"):
        GraphSolver(neighbours=0)
    with pytest.raises(UserError, match="counts"):
        GraphSolver(anchor=True)(torch.eye(2), torch.ones(2))
