"""The graph problem: milliseconds of a solve, with and without backward, against cvxpylayers."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import cvxpy as cp
import torch
from cvxpylayers.torch import CvxpyLayer
from torch import Tensor

from benchmarks.measuring import Row, growth, interleaved, median_ratio
from dograph.graph.domain_graph import affinity, edge_rows
from dograph.graph.graph_solver import GraphSolver
from dograph.graph.kernel import gradient_kernel, squared_distances
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver
from dograph.graph.threads import one_thread

SIZES = (8, 32, 128, 512)
DEFAULT = 11
ROUNDS = {8: 30, 11: 30, 32: 20, 128: 8, 512: 3}
ASKED, LONGEST = 128, 0.010
"""Number of nodes with a target, and its seconds."""
WAYS = ("forward", "both")
Instance = tuple[Tensor, Tensor, Tensor]


def instance(m: int) -> Instance:
    """Draw K, spread and counts of m clusters of sketches with 1024 numbers."""
    generator = torch.Generator().manual_seed(m)
    means = torch.randn(m, 1024, generator=generator, dtype=torch.float64)
    spread = 1024 * torch.rand(m, generator=generator, dtype=torch.float64)
    return gradient_kernel(means), spread, torch.ones(m)


@functools.cache
def plain_layer(m: int) -> CvxpyLayer:
    """Build the problem as docs/method.md states it, with unmodified cvxpylayers."""
    root, linear, weights = cp.Parameter((m, m)), cp.Parameter(m), cp.Variable(m)
    objective = cp.Minimize(cp.sum_squares(root @ weights) + linear @ weights)
    problem = cp.Problem(objective, [weights >= 0, cp.sum(weights) == 1])
    return CvxpyLayer(problem, parameters=[root, linear], variables=[weights])


def plain_cvxpylayers(kernel: Tensor, spread: Tensor) -> Tensor:
    """Return weights (m,) by that layer with its defaults, a root by eigh; β = 0.1."""
    m = len(kernel)
    scale = kernel.trace() / m
    values, vectors = torch.linalg.eigh(kernel / scale + 1e-6 * torch.eye(m, dtype=kernel.dtype))
    root = values.clamp(min=0).sqrt()[:, None] * vectors.T
    (weights,) = plain_layer(m)(root, 0.1 * spread / scale)
    return weights


def ours(solver: GraphSolver, given: Instance) -> Tensor:
    """(m,) weights by a GraphSolver, which must succeed."""
    solution = solver(*given)
    assert solution.ok, solution.status
    return solution.weights


def both_ways(m: int, solve: Callable[[Tensor], Tensor], name: str) -> dict[str, Callable]:
    """Return a solve, and a solve with backward, by name."""
    kernel = instance(m)[0]
    moving = kernel.clone().requires_grad_()
    return {
        f"{name} forward": lambda: solve(kernel),
        f"{name} both": lambda: solve(moving).square().sum().backward(),
    }


def size_row(m: int) -> tuple[Row, float, float]:
    """Return one size's row, its seconds forward, and its seconds with backward."""
    kernel, spread, counts = instance(m)
    solver = GraphSolver()
    actions = both_ways(m, lambda K: ours(solver, (K, spread, counts)), "ours")
    actions |= both_ways(m, lambda K: plain_cvxpylayers(K, spread), "first")
    error = (plain_cvxpylayers(kernel, spread) - ours(solver, (kernel, spread, counts))).abs().max()
    assert error < 1e-2, "the two ways differ"
    times = interleaved(actions, ROUNDS[m])
    forward, both, first, first_both = (statistics.median(times[name]) for name in actions)
    ratios = [median_ratio(times[f"first {way}"], times[f"ours {way}"]) for way in WAYS]
    row = Row(
        f"weights of {m} domains, as published",
        f"{1000 * forward:.2f} ms, with backward {1000 * both:.2f} ms; plain cvxpylayers "
        f"takes {ratios[0]:.1f} times as long, with backward {ratios[1]:.1f} times",
        f"≤ {1000 * LONGEST:.0f} ms forward" if m == ASKED else "",
        forward <= LONGEST if m == ASKED else None,
        f"plain cvxpylayers: {1000 * first:.1f} ms, with backward {1000 * first_both:.1f} ms, "
        f"weights differ by {error:.0e}",
    )
    return row, forward, both


def edge_row(m: int) -> Row:
    """Compare all terms, existing edges only, with all terms but the edges."""
    given = instance(m)
    terms = {"laplacian": True, "edges": True, "anchor": True}
    solver, plain = GraphSolver(**terms), GraphSolver(laplacian=True, anchor=True)
    actions = both_ways(m, lambda K: ours(solver, (K, *given[1:])), "edges")
    actions |= both_ways(m, lambda K: ours(plain, (K, *given[1:])), "none")
    times = interleaved(actions, ROUNDS[m])
    edges = int((affinity(squared_distances(given[0]), solver.neighbours) > 0).sum()) // 2
    forward, both = (1000 * statistics.median(times[f"edges {way}"]) for way in WAYS)
    ratio = median_ratio(times["edges forward"], times["none forward"])
    figure = (
        f"{forward:.2f} ms, with backward {both:.2f} ms; {ratio:.1f} times the time without edges"
    )
    pairs = m * (m - 1) // 2
    return Row(f"all terms, {m} domains, edges bounded", figure, note=f"{edges} of {pairs} pairs")


def schedule_row(sources: int) -> Row:
    """Time the schedule's solve, with backward to the influences."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(sources, 1024, generator=generator, dtype=torch.float64)
    kernel = gradient_kernel(means) / 1024
    root = torch.linalg.cholesky(kernel + 1e-6 * torch.eye(sources)).T
    edges = edge_rows(affinity(squared_distances(means), 3))
    prior = torch.full((sources,), 1 / sources, dtype=torch.float64)
    influence = torch.randn(sources, generator=generator, dtype=torch.float64)
    moving = influence.clone().requires_grad_()
    solver = ScheduleSolver(edges=True)

    def solve(b: Tensor) -> Tensor:
        solution = solver(ScheduleProblem(b, root, edges, prior), lam=0.1, nu=0.1, delta=0.2)
        assert solution.ok, solution.status
        return solution.weights

    times = interleaved(
        {
            "forward": lambda: solve(influence),
            "both": lambda: solve(moving).square().sum().backward(),
        },
        rounds=30,
    )
    forward, both = (1000 * statistics.median(times[way]) for way in ("forward", "both"))
    return Row(
        f"the schedule's solve, {sources} sources, edges bounded",
        f"{forward:.2f} ms, with backward {both:.2f} ms",
    )


@one_thread()  # as in the mixers
def rows() -> list[Row]:
    """Measure each size, growth, edges and the schedule."""
    table, forward, both = [], [], []
    for m in SIZES:
        row, ahead, and_back = size_row(m)
        table.append(row)
        forward.append(ahead)
        both.append(and_back)
    exponents = f"{growth(SIZES, forward):.2f}, with backward {growth(SIZES, both):.2f}"
    large = growth(SIZES[-2:], forward[-2:])
    note = f"forward from {SIZES[-2]} to {SIZES[-1]}: {large:.2f}; below, call overhead dominates"
    table.append(Row("growth in the number of domains, exponent", exponents, note=note))
    table.append(size_row(DEFAULT)[0])
    return [*table, edge_row(32), edge_row(128), schedule_row(7), schedule_row(64)]
