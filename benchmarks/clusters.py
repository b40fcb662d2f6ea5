"""K-means, window and graph: what an update costs, of the time between updates, and its growth."""

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
from dograph.mixers import DoGraph, DoGraphSchedule
from dograph.signals.batch_signals import BatchSignals
from dograph.signals.sketches import SketchSettings

BATCH = 32
DOMAINS = 7
LARGEST_SHARE = 0.01
"""Of the time between two updates, as asked for."""
STEPS = 12
UPDATES = 12


class Gradients:
    """Sketches of sequences whose domains differ as much as they scatter."""

    def __init__(self, numbers: int) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.centres = torch.randn(DOMAINS, numbers, generator=self.generator)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """(n, k) sketches and (n,) domains."""
        domain = torch.randint(0, DOMAINS, (count,), generator=self.generator)
        noise = torch.randn(count, self.centres.shape[1], generator=self.generator)
        return self.centres[domain] + noise, domain

    def signals(self, step: int) -> BatchSignals:
        """A batch, and a probe of four sequences a domain."""
        sketch, domain = self.draw(BATCH)
        probe = torch.arange(DOMAINS).repeat(4)
        loss = torch.ones(BATCH)
        return BatchSignals(
            step, domain, loss, sketch, probe_sketch=self.draw(28)[0], probe_domain=probe
        )


def numbers() -> int:
    """Of a sketch by default: four matrices' squared ranks."""
    return 4 * SketchSettings().rank ** 2


class Timed(DoGraph):
    """Published DoGraph that notes the seconds of its K-means, graph and solve."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """The same weights, timed."""
        start = time.perf_counter()
        weights = super().loss_weights(signals)
        self.seconds.append(time.perf_counter() - start)
        return weights


def published() -> tuple[float, float]:
    """Median seconds of an update, and of a step, in one run of the nano model."""
    from benchmarks.timed_run import timed_run

    mixer = Timed()
    steps = timed_run("gpt2_nano", mixer, STEPS)
    return statistics.median(mixer.seconds[1:]), statistics.median(steps)


def median_seconds(action: Callable[[int], object], rounds: int) -> tuple[float, float]:
    """Median wall-clock and processor time of an action, after one that is not counted.

    The processor's time is what it would take on a machine with nothing else to do.
    """
    action(0)
    wall, busy = [], []
    for turn in range(1, rounds + 1):
        start, worked = time.perf_counter(), time.process_time()
        action(turn)
        wall.append(time.perf_counter() - start)
        busy.append(time.process_time() - worked)
    return statistics.median(wall), statistics.median(busy)


def schedule() -> tuple[float, float, int]:
    """Seconds of one update of the schedule, its window kept included, and its interval."""
    gradients, mixer = Gradients(numbers()), DoGraphSchedule()
    mixer.setup([str(i) for i in range(DOMAINS)], [1] * DOMAINS, BATCH)
    mixer.recent.add(*gradients.draw(mixer.window))
    batches = [gradients.signals(turn * mixer.update_every) for turn in range(UPDATES + 1)]

    def interval(turn: int) -> None:
        assert batches[turn].sketch is not None
        for _ in range(mixer.observed):
            mixer.recent.add(batches[turn].sketch, batches[turn].domain)
        mixer.update(batches[turn])

    return *median_seconds(interval, UPDATES), mixer.update_every


def share_row(name: str, update: float, between: float, note: str) -> Row:
    """Seconds of an update over those between two."""
    share = update / between
    return Row(
        f"{name}: an update over the time between two",
        f"{100 * share:.2f} % ({1000 * update:.1f} ms of {between:.2f} s)",
        f"≤ {100 * LARGEST_SHARE:.0f} %",
        share <= LARGEST_SHARE,
        note,
    )


def growth_row(name: str, sizes: tuple[int, ...], at: Callable[[int], tuple[int, int, int]]) -> Row:
    """Exponent of K-means' time where ``at`` gives (window, K, d) for a size."""
    times = []
    for size in sizes:
        window, clusters, width = at(size)
        sketches, _ = Gradients(width).draw(window)
        cluster = functools.partial(cluster_sequences, sketches, clusters)
        with one_thread():  # as the mixers do
            times.append(median_seconds(cluster, 7)[1])
    shown = ", ".join(f"{1000 * value:.1f}" for value in times)
    return Row(
        f"K-means, growth in {name}",
        f"exponent {growth(sizes, times):.2f}",
        note=f"{sizes}: {shown} ms of processor time",
    )


def rows() -> list[Row]:
    """Shares of training time, and growth in window, K and d around (512, 11, 1024)."""
    width, window = numbers(), DoGraphSchedule().window
    update, step = published()
    wall, busy, interval = schedule()
    note = f"({window}, {width}), every {interval} steps; {1000 * busy:.1f} ms of processor time"
    return [
        share_row("published DoGraph", update, step, f"({BATCH}, {width}), every step, in one run"),
        share_row("schedule", wall, interval * step, note),
        growth_row("the window", (128, 256, 512, 1024, 2048), lambda n: (n, 11, width)),
        growth_row("K", (8, 16, 32, 64, 128), lambda k: (window, k, width)),
        growth_row("d", (256, 512, 1024, 2048, 4096), lambda d: (window, 11, d)),
    ]
