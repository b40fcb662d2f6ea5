"""What DoGraph's sampling schedule costs: in training time, and in its solve.

    python benchmarks/schedule.py --model gpt2_nano

Training: the steps of one run that neither sketch nor probe are plain stratified steps; what the
others take more, over an interval, is the schedule's cost. Every interval has both, so that they
are measured side by side. With --pairs, whole runs under Stratified are timed in turn as well.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from rich.console import Console
from rich.table import Table
from solver import milliseconds
from timed_run import timed_run

from dograph.graph.domain_graph import affinity
from dograph.graph.schedule_solver import Problem, ScheduleSolver, edge_rows
from dograph.mixers import BaseMixer, DoGraphSchedule, Stratified
from dograph.run import quieten
from dograph.signals.kernel import gradient_kernel, squared_distances

WARM_UP = 5


def overhead(seconds: list[float], mixer: DoGraphSchedule) -> list[float]:
    """Time of each whole interval over that of as many of its plain steps."""
    interval, ratios = mixer.update_every, []
    for start in range(interval, len(seconds) + 2 - interval, interval):
        numbered = {step: seconds[step - 1] for step in range(start, start + interval)}
        plain = statistics.median(t for step, t in numbered.items() if not mixer.needs_at(step))
        more = sum(t - plain for step, t in numbered.items() if mixer.needs_at(step))
        ratios.append(1 + more / (interval * plain))
    return ratios


def solve_times(clusters: int, sources: int, repeats: int) -> tuple[float, float]:
    """(forward, forward and backward) milliseconds of a solve."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(clusters, 1024, generator=generator, dtype=torch.float64)
    kernel = gradient_kernel(means) / 1024
    root = torch.linalg.cholesky(kernel + 1e-6 * torch.eye(clusters)).T
    edges = edge_rows(affinity(squared_distances(means), 3), clusters * 3 // 2)
    shares = torch.softmax(torch.randn(clusters, sources, generator=generator).double(), dim=0)
    prior = torch.full((sources,), 1 / sources, dtype=torch.float64)
    b = torch.randn(clusters, generator=generator, dtype=torch.float64).requires_grad_()
    solver = ScheduleSolver()

    def solve(alignment: torch.Tensor) -> torch.Tensor:
        solution = solver(Problem(alignment, root, edges, shares, prior, prior), lam=0.1)
        assert solution.ok, solution.status
        return solution.weights

    return (
        milliseconds(lambda: solve(b.detach()), repeats),
        milliseconds(lambda: solve(b).square().sum().backward(), repeats),
    )


def main() -> None:
    """Prints ratios of training time, and milliseconds of the solve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt2_nano", help="a file of configs/model")
    parser.add_argument("--intervals", type=int, default=3, help="measured, after a first one")
    parser.add_argument("--pairs", type=int, default=0, help="whole runs against Stratified")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quieten()
    table = Table(title=f"{arguments.model}, {arguments.threads} threads")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    mixer = DoGraphSchedule()
    steps = mixer.update_every * (arguments.intervals + 1)
    ratios = overhead(timed_run(arguments.model, mixer, steps), mixer)
    name = f"schedule over its plain steps, interval {mixer.update_every}"
    table.add_row(f"{name}, median of {len(ratios)}", f"{statistics.median(ratios):.3f}")
    table.add_row(f"{name}, range", f"{min(ratios):.3f} … {max(ratios):.3f}")
    found = []
    for pair in range(arguments.pairs):
        runs: list[BaseMixer] = [Stratified(), DoGraphSchedule()]
        totals = {}
        for each in runs if pair % 2 else reversed(runs):
            length = mixer.update_every + WARM_UP
            totals[type(each)] = sum(timed_run(arguments.model, each, length)[WARM_UP - 1 :])
        found.append(totals[DoGraphSchedule] / totals[Stratified])
    if found:
        table.add_row(
            f"whole runs over Stratified's, {len(found)} pairs", f"{statistics.median(found):.3f}"
        )
    for clusters in (11, 64):
        forward, both = solve_times(clusters, sources=7, repeats=15)
        text = f"{forward:.2f} / {both:.2f}"
        table.add_row(f"solve, K = {clusters}, 7 sources: forward / with backward, ms", text)
    Console().print(table)


if __name__ == "__main__":
    main()
