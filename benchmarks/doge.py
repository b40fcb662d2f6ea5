"""DoGE's weights by exact gradients and by sketches, side by side, and what each takes.

    python benchmarks/doge.py --steps 200 --seeds 0 1 2

Proxies of the same seed see the same batches. Distances are total variation, ½ Σ |a_s − b_s|.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from rich.console import Console
from rich.table import Table
from timed_run import timed_run

from dograph.mixers import BaseMixer, DoGE, Stratified
from dograph.run import quieten
from dograph.signals.sketches import SketchSettings

SOURCES = {
    "exact": SketchSettings(),
    "sketch, model": SketchSettings(blocks="model", rank=32, fresh=True),
    "sketch, all blocks": SketchSettings(blocks="all", rank=32, fresh=True),
    "sketch, last block": SketchSettings(),
}


WARM_UP = 3


def proxy(
    mixer: BaseMixer, sketch: SketchSettings, seed: int, arguments: argparse.Namespace
) -> float:
    """Trains a proxy; median seconds a step."""
    seconds = timed_run(arguments.model, mixer, arguments.steps, sketch, seed)
    return statistics.median(seconds[WARM_UP:])


def main() -> None:
    """Prints the weights of each source and seed, their distance to exact, and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt2_nano", help="a file of configs/model")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--mu", type=float, default=0.04, help="as in recipes/doge_gpt2.yaml")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quieten()
    table = Table(title=f"DoGE's average weights after {arguments.steps} steps, {arguments.model}")
    table.add_column("gradients")
    table.add_column("seed", justify="right")
    ratios: dict[str, list[float]] = {name: [] for name in SOURCES}
    for seed in arguments.seeds:
        plain = proxy(Stratified(), SketchSettings(), seed, arguments)
        exact = torch.zeros(0)
        for name, sketch in SOURCES.items():
            mixer = DoGE("exact" if name == "exact" else "sketch", mu=arguments.mu)
            seconds = proxy(mixer, sketch, seed, arguments)
            if not table.columns[2:]:
                for heading in (*mixer.domains, "distance to exact", "s a step"):
                    table.add_column(heading, justify="right")
            weights = mixer.average_weights
            exact = weights if name == "exact" else exact
            distance = 0.5 * (weights - exact).abs().sum().item()
            cells = [f"{weight:.3f}" for weight in weights.tolist()]
            table.add_row(name, str(seed), *cells, f"{distance:.3f}", f"{seconds:.3f}")
            ratios[name].append(seconds / plain)
        table.add_section()
    Console(width=160).print(table)
    for name, found in ratios.items():
        print(f"{name}: {statistics.median(found):.2f} × the time of a step under Stratified")


if __name__ == "__main__":
    main()
