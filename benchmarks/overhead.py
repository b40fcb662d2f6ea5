"""Time that published DoGraph adds to a step, by part."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dograph.mixers.dograph as published
from benchmarks.measuring import Row
from benchmarks.timed_run import timed_run
from dograph.experiments.run import quieten
from dograph.graph.graph_solver import GraphSolver
from dograph.mixers import BaseMixer, DoGraph
from dograph.signals.projections import Projections

WARM_UP = 5
STEPS = {"nano": 25, "micro": 10}
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "dograph_overhead.png"
PARTS: dict[str, tuple[Any, str]] = {
    "projections of the sketch": (Projections, "sketch"),
    "K-means": (published, "cluster_sequences"),
    "means, spread, graph": (published, "domain_graph"),
    "solve": (GraphSolver, "forward"),
    "weights as a whole": (BaseMixer, "weigh"),
}
"""Timed functions; the last one contains the three before it."""


class Stopwatch:
    """Replace functions and record the seconds of each call."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Stopwatch:
        for name, (owner, function) in PARTS.items():
            original = getattr(owner, function)
            self._originals.append((owner, function, original))
            setattr(owner, function, self._timed(name, original))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, function, original in self._originals:
            setattr(owner, function, original)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name].append(time.perf_counter() - start)

        return timed


def parts_of(size: str) -> tuple[float, dict[str, float]]:
    """Return the median seconds of DoGraph's step and of its parts."""
    quieten()
    steps = STEPS[size] + WARM_UP
    with Stopwatch() as watch:
        step = statistics.median(timed_run(f"gpt2_{size}", DoGraph(), steps)[WARM_UP:])
    parts = {name: _median_step(calls, steps) for name, calls in watch.seconds.items()}
    inner = sum(parts[name] for name in ("K-means", "means, spread, graph", "solve"))
    parts["checks, labels, copies"] = parts.pop("weights as a whole") - inner
    return step, parts


def _median_step(calls: list[float], steps: int) -> float:
    """Return the median seconds of a step's calls, without those of the dry run before training."""
    each = len(calls) // steps
    trained = calls[len(calls) - each * steps :]
    return statistics.median(sum(trained[i : i + each]) for i in range(0, len(trained), each))


def rows() -> list[Row]:
    """Measure each part's milliseconds and share of a step, and draw them."""
    sizes = {size: parts_of(size) for size in STEPS}
    draw(sizes, FIGURE)
    table = []
    for size, (step, parts) in sizes.items():
        for name, seconds in sorted(parts.items(), key=lambda item: -item[1]):
            share = f"{100 * seconds / step:.2f} % of a step of {1000 * step:.0f} ms"
            table.append(Row(f"{size}: {name}", f"{1000 * seconds:.2f} ms", "", None, share))
    return table


def draw(sizes: dict[str, tuple[float, dict[str, float]]], path: Path) -> None:
    """Draw the parts of every size as bars, in percent of a step."""
    from matplotlib import pyplot

    names = sorted(sizes["nano"][1], key=lambda name: sizes["nano"][1][name])
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    height = 0.8 / len(sizes)
    for number, (size, (step, parts)) in enumerate(sizes.items()):
        shares = [100 * parts[name] / step for name in names]
        places = [place - number * height for place in range(len(names))]
        total = sum(shares)
        label = f"{size}: {total:.1f} % of a step of {1000 * step:.0f} ms"
        bars = axes.barh(places, shares, height, label=label, color=("#4477aa", "#ee8866")[number])
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks([place - height / 2 for place in range(len(names))], names)
    axes.set_xlabel("% of a training step")
    axes.set_title("What published DoGraph adds to a step", loc="left")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", reverse=False)
    figure.savefig(path, dpi=150)
