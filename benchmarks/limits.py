"""Limits: processor time of a projection, and what they add to the schedule's solve."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from benchmarks.measuring import Row, interleaved
from benchmarks.scale.counted import CONTEXT, NANO, VOCABULARY, network, sequence_losses
from benchmarks.scale.timed import median_seconds
from dograph.graph.kernel import kernel_root
from dograph.graph.minimise import Solution
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver
from dograph.graph.threads import one_thread
from dograph.mixers.limits import Limits
from dograph.mixers.run_limits import RunLimits

FEW, MANY = 7, 200
LONGEST = 5.0
"""Milliseconds at ``MANY`` domains."""
LARGEST_SHARE = 0.01
"""Of a step, at ``FEW`` domains."""
SEQUENCES, ROUNDS = 32, 20
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


@one_thread()  # as in the mixers
def rows() -> list[Row]:
    """Both sizes, of which the smaller is compared with a step."""
    tokens = torch.randint(VOCABULARY, (SEQUENCES, CONTEXT + 1))
    plain = network(NANO)
    step = median_seconds(lambda: sequence_losses(plain, tokens).mean().backward())
    few, many = times_of(FEW), times_of(MANY)
    asked = f"≤ {100 * LARGEST_SHARE:g} % of a step"
    note = f"of forward and backward of the nano model on {SEQUENCES} × {CONTEXT} tokens"
    return [
        Row(
            f"{name}, {FEW} domains",
            f"{1000 * each:.2f} ms, {100 * each / step:.2f} % of a step",
            asked,
            each <= LARGEST_SHARE * step,
            f"{note}, {1000 * step:.0f} ms",
        )
        for name, each in few.items()
    ] + [
        Row(
            f"{name}, {MANY} domains",
            f"{1000 * each:.2f} ms",
            f"≤ {LONGEST:g} ms",
            1000 * each <= LONGEST,
        )
        for name, each in many.items()
    ]


def times_of(count: int) -> dict[str, float]:
    """Processor seconds of a projection with its prices, and what limits add to a solve."""
    limits, problem, solver = run_limits(count), problem_of(count), ScheduleSolver()
    wanted = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(count)))
    done = torch.full((count,), 10.0, dtype=torch.float64)

    def project() -> None:
        within = limits.polytope(done)
        limits.prices(wanted, limits.nearest(wanted, within), within)

    def solve(limited: bool) -> Solution:
        within = limits.polytope(done) if limited else None
        solution = solver(problem, kappa=0.3, nu=0.1, within=within)
        assert solution.ok, solution.status
        return solution

    actions = {"project": project, "limited": lambda: solve(True), "free": lambda: solve(False)}
    times = interleaved(actions, ROUNDS, time.process_time)
    added = (a - b for a, b in zip(times["limited"], times["free"], strict=True))
    return {
        "projection on limits, with prices": statistics.median(times["project"]),
        "limits in the schedule's problem": statistics.median(added),
    }
