"""An update by K-means, window and graph: its share of the time between updates, and its growth."""

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
"""Largest share of the time between two updates that an update may take."""
STEPS = 12
UPDATES = 12


class Gradients:
    """Random sketches whose domains differ as much as their sequences scatter."""

    def __init__(self, numbers: int) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.centres = torch.randn(DOMAINS, numbers, generator=self.generator)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw (n, k) sketches and (n,) domains."""
        domain = torch.randint(0, DOMAINS, (count,), generator=self.generator)
        noise = torch.randn(count, self.centres.shape[1], generator=self.generator)
        return self.centres[domain] + noise, domain

    def signals(self, step: int) -> BatchSignals:
        """Return signals of a batch, and of a probe with four sequences a domain."""
        sketch, domain = self.draw(BATCH)
        probe = torch.arange(DOMAINS).repeat(4)
        loss = torch.ones(BATCH)
        return BatchSignals(
            step, domain, loss, sketch, probe_sketch=self.draw(28)[0], probe_domain=probe
        )


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


def median_seconds(action: Callable[[int], object], rounds: int) -> tuple[float, float]:
    """Return the median wall-clock and processor time of an action, after an uncounted first call.

    Processor time is what the action would take on an idle machine.
    """
    action(0)
    wall, busy = [], []
    for number in range(1, rounds + 1):
        start, worked = time.perf_counter(), time.process_time()
        action(number)
        wall.append(time.perf_counter() - start)
        busy.append(time.process_time() - worked)
    return statistics.median(wall), statistics.median(busy)


def schedule() -> tuple[float, float, int]:
    """Return seconds of the schedule's update, filling its window included, and its interval."""
    gradients, mixer = Gradients(numbers()), DoGraphSchedule()
    mixer.setup([str(i) for i in range(DOMAINS)], [1] * DOMAINS, BATCH)
    mixer.recent.add(*gradients.draw(mixer.window))
    batches = [gradients.signals(number * mixer.update_every) for number in range(UPDATES + 1)]

    def interval(number: int) -> None:
        assert batches[number].sketch is not None
        for _ in range(mixer.observed):
            mixer.recent.add(batches[number].sketch, batches[number].domain)
        mixer.update(batches[number])

    return *median_seconds(interval, UPDATES), mixer.update_every


def share_row(name: str, update: float, between: float, note: str) -> Row:
    """Compare the seconds of an update with those between two updates."""
    share = update / between
    return Row(
        f"{name}: an update's share of the time between updates",
        f"{100 * share:.2f} % ({1000 * update:.1f} ms of {between:.2f} s)",
        f"≤ {100 * LARGEST_SHARE:.0f} %",
        share <= LARGEST_SHARE,
        note,
    )


def growth_row(name: str, sizes: tuple[int, ...], at: Callable[[int], tuple[int, int, int]]) -> Row:
    """Fit the growth of K-means' time; ``at`` maps a size to (window, K, d)."""
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
    """Measure updates' shares of time, and growth in window, K and d around (512, 11, 1024)."""
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
