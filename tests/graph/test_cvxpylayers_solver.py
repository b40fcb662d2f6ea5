"""The fast solver against the reference, cvxpylayers: a hundred problems, many degenerate."""

import pytest
import torch
from graph_problems import ALL_TERMS, instance, schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.graph.cvxpylayers_solver import cone_layer
from dograph.graph.domain_graph import affinity, laplacian
from dograph.graph.graph_solver import GraphSolver, kernel_scale
from dograph.graph.kernel import gradient_kernel, kernel_distances
from dograph.graph.schedule_solver import ScheduleSolver

SHAPES = ["generic", "duplicates", "low rank", "no spread", "equal spread", "float32", "scaled"]
GRADIENTS_OF = ("beta", "gamma", "nu", "delta")


def problem(shape, m, seed):
    """K, spread and counts: generic, or degenerate in a named way."""
    K, spread, counts = instance(m, seed=seed)
    if shape == "duplicates":  # every cluster twice
        twice = torch.arange(m) // 2
        K, spread = K[twice][:, twice], spread[twice]
    elif shape == "low rank":
        K = gradient_kernel(torch.randn(m, 2, generator=torch.Generator().manual_seed(seed)))
    elif shape == "no spread":
        spread = 0 * spread
    elif shape == "equal spread":
        spread = torch.ones_like(spread)
    elif shape == "float32":  # indefinite by its rounding
        means = torch.randn(m, 3, generator=torch.Generator().manual_seed(seed))
        K = means @ means.T
    elif shape == "scaled":
        K, spread = 1e-9 * K, 1e-9 * spread
    return K, spread, counts


@settings(max_examples=120, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    m=st.integers(1, 12),
    terms=st.fixed_dictionaries(dict.fromkeys(ALL_TERMS, st.booleans())),
    floor=st.sampled_from([0.0, 0.3]),
    beta=st.sampled_from([0.0, 0.1, 1.0, 30.0]),
    gamma=st.sampled_from([0.0, 0.5]),
    delta=st.sampled_from([0.0, 0.01, 0.2, 2.0]),
    nu=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_both_solvers_find_the_same_minimum(shape, m, terms, floor, beta, gamma, delta, nu, seed):
    K, spread, counts = problem(shape, m, seed)
    scalars = {"beta": beta, "gamma": gamma, "delta": delta, "nu": nu}

    def objective(w):
        shares, scale = counts.double() / counts.sum(), kernel_scale(K.double())
        value = w @ K.double() @ w / scale + 1e-6 * w @ w + beta * w @ spread.double() / scale
        if terms["laplacian"]:
            strengths = affinity(kernel_distances(K.double()), 3)
            value += gamma * w @ laplacian(strengths) @ w
        if terms["anchor"]:
            value += nu * ((w - shares).square() / shares).sum()
        return value

    found, reference = (
        GraphSolver(**terms, floor=floor, backend=backend)(K, spread, counts, **scalars)
        for backend in ("piqp", "cvxpylayers")
    )
    assert found.ok and reference.ok, (found.status, reference.status)
    lower = objective(found.weights) - objective(reference.weights)
    assert lower <= 1e-11 * (1 + beta + nu)
    # Where rank and coefficients leave directions flat to 1e-9, the reference strays along them.
    if shape not in ("low rank", "float32") or nu:
        torch.testing.assert_close(found.weights, reference.weights, rtol=0, atol=2e-5)


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_both_solvers_have_the_same_derivative(seed):
    K, spread, counts = instance(3 + seed % 7, seed=seed, spread=0.3)
    direction = torch.randn(len(K), generator=torch.Generator().manual_seed(seed)).double()
    gradients = {}
    for backend in ("piqp", "cvxpylayers"):
        values = {name: torch.tensor(0.3).double().requires_grad_() for name in GRADIENTS_OF}
        leaf = K.clone().requires_grad_()
        solver = GraphSolver(**ALL_TERMS, backend=backend)
        weights = solver(leaf, spread, counts, **values).weights
        inputs = [leaf, *values.values()]
        gradients[backend] = torch.autograd.grad(weights @ direction, inputs)
    largest = max(gradient.abs().max() for gradient in gradients["cvxpylayers"])
    for found, expected in zip(gradients["piqp"], gradients["cvxpylayers"], strict=True):
        # diffcp solves for it at the cone program's accuracy.
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * largest.item())


@settings(max_examples=40, deadline=None)
@given(
    S=st.integers(2, 11),
    edges=st.booleans(),
    delta=st.sampled_from([0.0, 0.05, 0.5]),
    nu=st.sampled_from([0.1, 4.0]),
    seed=st.integers(0, 10_000),
)
def test_both_solvers_find_the_same_schedule(S, edges, delta, nu, seed):
    scalars = {"kappa": 0.5, "lam": 0.2, "nu": nu, "delta": delta}
    found, reference = (
        ScheduleSolver(edges=edges, backend=backend)(schedule(S, seed), **scalars)
        for backend in ("piqp", "cvxpylayers")
    )
    assert found.ok and reference.ok, (found.status, reference.status)
    torch.testing.assert_close(found.weights, reference.weights, rtol=0, atol=1e-5)


def test_the_references_problems_are_built_once_a_size():
    cone_layer.cache_clear()
    for m in (3, 5, 3, 5, 3):
        GraphSolver(anchor=True, backend="cvxpylayers")(*instance(m))
        GraphSolver(laplacian=True, backend="cvxpylayers")(*instance(m))
    assert cone_layer.cache_info().misses == 2
    GraphSolver(edges=True, backend="cvxpylayers")(*instance(3))
    assert cone_layer.cache_info().misses == 3
