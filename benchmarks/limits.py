"""Limits: milliseconds of a projection, and what they add to the schedule's solve."""

from __future__ import annotations

import statistics

import numpy as np
import torch

from benchmarks.measuring import Row, interleaved
from dograph.graph.kernel import kernel_root
from dograph.graph.minimise import Solution
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver
from dograph.mixers.limits import Limits, RunLimits

FEW, MANY = 7, 200
LONGEST = 5.0
"""Milliseconds at ``MANY`` domains."""
RUN_SEQUENCES = 12_800


def run_limits(count: int) -> RunLimits:
    """Epochs of every domain, shares of two groups, and one ratio."""
    names = [f"domain_{index}" for index in range(count)]
    half = count // 2
    limits = Limits(
        epochs=1.5,
        at_least={"first": 0.3},
        at_most={"second": 0.6},
        groups={"first": names[:half], "second": names[half:]},
        ratio={names[0]: {names[1]: [0.5, 2.0]}},
    )
    sequences = [RUN_SEQUENCES // count] * count
    return limits.of_run(names, [True] * count, sequences, RUN_SEQUENCES)


def problem_of(count: int) -> ScheduleProblem:
    """A schedule's problem of random gradients, without edges."""
    generator = torch.Generator().manual_seed(count)
    means = torch.randn(count, 4 * count, generator=generator, dtype=torch.float64)
    kernel = means @ means.T / (4 * count)
    influence = torch.randn(count, generator=generator, dtype=torch.float64) / 3
    prior = torch.full((count,), 1 / count, dtype=torch.float64)
    edges = torch.zeros(0, count, dtype=torch.float64)
    return ScheduleProblem(influence, kernel_root(kernel), edges, prior)


def rows() -> list[Row]:
    """Both sizes."""
    return [row for count in (FEW, MANY) for row in rows_of(count)]


def rows_of(count: int) -> list[Row]:
    """A projection with its prices, and the schedule's solve with and without limits."""
    limits, problem, solver = run_limits(count), problem_of(count), ScheduleSolver()
    wanted = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(count)))
    done = torch.full((count,), 10.0, dtype=torch.float64)

    def project() -> None:
        limits.prices(wanted, limits.nearest(wanted, done), done)

    def solve(limited: bool) -> Solution:
        within = limits.polytope(done) if limited else None
        solution = solver(problem, kappa=0.3, nu=0.1, within=within)
        assert solution.ok, solution.status
        return solution

    actions = {"project": project, "limited": lambda: solve(True), "free": lambda: solve(False)}
    times = interleaved(actions, rounds=20)
    projected, limited, free = (1000 * statistics.median(times[name]) for name in actions)
    added = statistics.median(a - b for a, b in zip(times["limited"], times["free"], strict=True))
    asked = count == MANY
    target = f"≤ {LONGEST:g} ms" if asked else ""
    return [
        Row(
            f"projection on limits, {count} domains, with prices",
            f"{projected:.2f} ms",
            target,
            projected <= LONGEST if asked else None,
        ),
        Row(
            f"limits in the schedule's problem, {count} domains",
            f"{1000 * added:.2f} ms more",
            target,
            1000 * added <= LONGEST if asked else None,
            f"{limited:.2f} ms with them, {free:.2f} ms without",
        ),
    ]
