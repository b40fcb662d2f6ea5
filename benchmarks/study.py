"""Final validation losses of several recipes over paired seeds, in a table.

    python benchmarks/study.py --seeds 0 1 2 --steps 400

Runs what is missing (one thread a process, two processes), skips what is finished. Three seeds
show a direction; a claim takes five.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

RECIPES = Path(__file__).parent.parent / "recipes"
BASELINE = "uniform_gpt2"
METHODS = (BASELINE, "proportional_gpt2", "dograph_gpt2", "dograph_anchored_gpt2")


def run(method: str, seed: int, steps: int, runs: Path) -> None:
    """Trains one recipe with one seed, unless its summary is there already."""
    folder = runs / method / f"seed_{seed}"
    if (folder / "summary.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)  # of a run that did not come to its end
    command = [sys.executable, "-m", "dograph", "run", str(RECIPES / f"{method}.yaml")]
    overrides = [f"seed={seed}", f"trainer.max_steps={steps}", f"runs={runs}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / f"{method}_{seed}.log").open("w") as log:
        subprocess.run(
            command + overrides, env=environment, stdout=log, stderr=log, stdin=None, check=True
        )


def losses(method: str, seed: int, runs: Path) -> dict[str, float]:
    """Validation loss in nats by domain at the end of a run."""
    summary = json.loads((runs / method / f"seed_{seed}" / "summary.json").read_text())
    return {name: domain["validation_loss"] for name, domain in summary["domains"].items()}


def interval(values: list[float]) -> str:
    """Mean ± half of the 95 % interval (Student's t)."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.3f} ± {half:.3f}" if abs(mean) < 1 else f"{mean:.3f} ± {half:.3f}"


def report(methods: list[str], seeds: list[int], steps: int, runs: Path) -> Table:
    """Mean and worst loss of each method, and the paired difference of means to the baseline."""
    table = Table(title=f"validation loss, nats a token, {steps} steps, seeds {seeds}")
    for column in ("method", "mean", "worst", "mean less uniform's, paired", "seconds a run"):
        table.add_column(column, justify="left" if column == "method" else "right")
    base = [statistics.mean(losses(BASELINE, seed, runs).values()) for seed in seeds]
    for method in methods:
        ends = [losses(method, seed, runs) for seed in seeds]
        means = [statistics.mean(end.values()) for end in ends]
        differences = [mean - other for mean, other in zip(means, base, strict=True)]
        seconds = [
            json.loads((runs / method / f"seed_{seed}" / "summary.json").read_text())["seconds"]
            for seed in seeds
        ]
        table.add_row(
            method.removesuffix("_gpt2"),
            interval(means),
            interval([max(end.values()) for end in ends]),
            "" if method == BASELINE else interval(differences),
            f"{statistics.median(seconds):.0f}",
        )
    return table


def main() -> None:
    """Runs the study and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="recipes by name")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/study"))
    arguments = parser.parse_args()
    arguments.runs /= f"steps_{arguments.steps}"
    jobs = [(method, seed) for seed in arguments.seeds for method in arguments.methods]
    with ThreadPoolExecutor(arguments.processes) as pool:
        waiting = [
            pool.submit(run, method, seed, arguments.steps, arguments.runs) for method, seed in jobs
        ]
        for job in waiting:
            job.result()
    Console(width=100).print(
        report(arguments.methods, arguments.seeds, arguments.steps, arguments.runs)
    )


if __name__ == "__main__":
    main()
