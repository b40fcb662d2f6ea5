"""Training time of DoGraph over Stratified, same recipe, interleaved; and where the rest goes.

python benchmarks/overhead.py --model gpt2_nano --pairs 5 --steps 10
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timed_run import timed_run

import dograph.mixers.dograph as published
from dograph.mixers import BaseMixer, DoGraph, Stratified
from dograph.run import quieten
from dograph.signals.sketches import SequenceSketcher

WARM_UP = 3


class Stopwatch:
    """Adds up the seconds of the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed


def train(model_name: str, mixer: BaseMixer, steps: int) -> float:
    """Median seconds a step of a fresh run."""
    return statistics.median(timed_run(model_name, mixer, steps + WARM_UP + 1)[WARM_UP:])


def main() -> None:
    """Prints the median ratio over pairs and the milliseconds of DoGraph's parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt2_nano", help="a file of configs/model")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="measured steps a run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quieten()
    watch = Stopwatch()
    SequenceSketcher.sketch = watch.wrap("sketches", SequenceSketcher.sketch)  # type: ignore[method-assign]
    published.cluster_sequences = watch.wrap("K-means", published.cluster_sequences)
    published.GraphSolver.forward = watch.wrap("solve", published.GraphSolver.forward)  # type: ignore[method-assign]
    ratios, base, steps_timed = [], [], 0
    for pair in range(arguments.pairs):
        builders: list[type[BaseMixer]] = [Stratified, DoGraph]
        seconds = {
            builder: train(arguments.model, builder(), arguments.steps)
            for builder in (builders if pair % 2 else reversed(builders))
        }
        steps_timed += arguments.steps + WARM_UP + 1
        base.append(seconds[Stratified])
        ratios.append(seconds[DoGraph] / seconds[Stratified])
        print(f"pair {pair + 1}: Stratified {base[-1]:.3f} s a step, ratio {ratios[-1]:.3f}")
    table = Table(title=f"{arguments.model}, {arguments.threads} threads, {len(ratios)} pairs")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_row("Stratified, seconds a step (median)", f"{statistics.median(base):.3f}")
    table.add_row("DoGraph / Stratified, median", f"{statistics.median(ratios):.3f}")
    table.add_row("DoGraph / Stratified, range", f"{min(ratios):.3f} … {max(ratios):.3f}")
    for name, total in watch.seconds.items():
        table.add_row(f"{name}, ms a step", f"{1000 * total / steps_timed:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
