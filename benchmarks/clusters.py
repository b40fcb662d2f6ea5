"""Published DoGraph's K-means and graph: their share of a step, and how K-means grows."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measuring import Row, growth
from dograph.graph.clusters import cluster_sequences
from dograph.graph.threads import one_thread
from dograph.mixers import DoGraph
from dograph.signals.batch_signals import BatchSignals
from dograph.signals.sketches import SketchSettings

BATCH = 32
DOMAINS = 7
LARGEST_SHARE = 0.01
"""Largest share of a step that an update may take."""
STEPS = 12
SEQUENCES = 512


def draw_sketches(count: int, numbers: int) -> Tensor:
    """Draw (n, k) sketches whose domains differ as much as their sequences scatter."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(DOMAINS, numbers, generator=generator)
    domain = torch.randint(0, DOMAINS, (count,), generator=generator)
    return centres[domain] + torch.randn(count, numbers, generator=generator)


def numbers() -> int:
    """Return k of a sketch by default: four matrices' squared ranks."""
    return 4 * SketchSettings().rank ** 2


class Timed(DoGraph):
    """Published DoGraph that records the seconds of its K-means, graph and solve."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """Return the same weights and record their seconds."""
        start = time.perf_counter()
        weights = super().loss_weights(signals)
        self.seconds.append(time.perf_counter() - start)
        return weights


def published() -> tuple[float, float]:
    """Return the median seconds of an update and of a step in one run of the nano model."""
    from benchmarks.timed_run import timed_run

    mixer = Timed()
    steps = timed_run("gpt2_nano", mixer, STEPS)
    return statistics.median(mixer.seconds[1:]), statistics.median(steps)


def busy_seconds(action: Callable[[int], object], rounds: int) -> float:
    """Return the median processor time of an action, after an uncounted first call.

    It is what the action would take on an idle machine.
    """
    action(0)
    busy = []
    for number in range(1, rounds + 1):
        worked = time.process_time()
        action(number)
        busy.append(time.process_time() - worked)
    return statistics.median(busy)


def growth_row(name: str, sizes: tuple[int, ...], at: Callable[[int], tuple[int, int, int]]) -> Row:
    """Fit the growth of K-means' time; ``at`` maps a size to (n, K, d)."""
    times = []
    for size in sizes:
        count, clusters, width = at(size)
        cluster = functools.partial(cluster_sequences, draw_sketches(count, width), clusters)
        with one_thread():  # as the mixers do
            times.append(busy_seconds(cluster, 7))
    shown = ", ".join(f"{1000 * value:.1f}" for value in times)
    return Row(
        f"K-means, growth in {name}",
        f"exponent {growth(sizes, times):.2f}",
        note=f"{sizes}: {shown} ms of processor time",
    )


def rows() -> list[Row]:
    """Measure an update's share of a step, and growth in n, K and d around (512, 11, 1024)."""
    width, (update, step) = numbers(), published()
    share = update / step
    return [
        Row(
            "published DoGraph: an update's share of a step",
            f"{100 * share:.2f} % ({1000 * update:.1f} ms of {step:.2f} s)",
            f"≤ {100 * LARGEST_SHARE:.0f} %",
            share <= LARGEST_SHARE,
            f"({BATCH}, {width}), in one run",
        ),
        growth_row("sequences", (128, 256, 512, 1024, 2048), lambda n: (n, 11, width)),
        growth_row("K", (8, 16, 32, 64, 128), lambda k: (SEQUENCES, k, width)),
        growth_row("d", (256, 512, 1024, 2048, 4096), lambda d: (SEQUENCES, 11, d)),
    ]
