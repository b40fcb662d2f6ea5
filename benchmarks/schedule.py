"""What DoGraph's schedule adds to training where it reads gradients (``measure``), too.

Stratified and the schedule, without and with an unseen target to probe, train in processes of their
own; their steps are interleaved. Times are processor times on one thread: what is added is less
than a busy machine changes. To be short, these runs read fewer steps than by default, and update
more often; the figures count each kind of step as often as a run with ``MEASURE`` has it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.baselines import RECIPES, SCHEDULE_INTERVAL, SCHEDULE_MEASURE
from benchmarks.interleaved import interleave_steps
from benchmarks.measuring import Row
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.mixers import DoGraphSchedule
from dograph.signals.batch_signals import EmbeddingGradients

MOST = {"nano": 1.05, "micro": 1.03}
"""Largest ratio over a run without a probe, by size."""
WARM_UP, ROUNDS = 5, 20
MEASURE = 120
"""Steps drawn by the prior while gradients are read, in the run that figures are counted for."""
WAYS = {"schedule": "even target", "probed": "one unseen target"}
"""Processes beside Stratified's, and what their runs aim at."""


@dataclass(frozen=True)
class Extra:
    """What steps take more processor time than Stratified's, in its steps: medians.

    Attributes:
        plain: a step that reads gradients.
        update: such a step with an update, and with the probe.
        first: the update that computes the kernel and solves first.
        later: a step after that, updates included.
    """

    plain: float
    update: float
    first: float
    later: float

    def reading(self, interval: int) -> float:
        """Mean over an interval while gradients are read."""
        return ((interval - 1) * self.plain + self.update) / interval


def extra(times: Sequence[float], stratified: Sequence[float]) -> Extra:
    """Sort the rounds' steps by kind."""
    kinds: dict[str, list[float]] = {"plain": [], "update": [], "first": [], "later": []}
    for step, (own, other) in enumerate(zip(times, stratified, strict=True), WARM_UP + 1):
        kind = "plain" if step % SCHEDULE_INTERVAL else "update"
        if step >= SCHEDULE_MEASURE:
            kind = "first" if step == SCHEDULE_MEASURE else "later"
        kinds[kind].append(own / other - 1)
    return Extra(**{kind: statistics.median(more) for kind, more in kinds.items()})


def rows_of(size: str, way: str, found: Extra) -> list[Row]:
    """Figures of one size and target, at the defaults and the recipe's number of steps."""
    mixer = DoGraphSchedule(measure=MEASURE)
    reading = found.reading(mixer.update_every)
    recipe = check(compose(RECIPES / "dograph_schedule_gpt2.yaml", [f"compose.model=gpt2_{size}"]))
    steps = int(recipe.arguments("trainer")["max_steps"])
    read = sum(mixer.needs_at(step, EmbeddingGradients) for step in range(steps))
    run = 1 + (read * reading + found.first - found.update) / steps
    most = MOST[size] if way == "schedule" else None
    kinds = f"a step {1 + found.plain:.3f}, every {mixer.update_every}th, with its update, "
    return [
        Row(
            f"{size}, {WAYS[way]}: training over Stratified while the schedule reads gradients",
            f"{1 + reading:.3f}",
            note=f"{kinds}{1 + found.update:.2f}; the one that solves first {1 + found.first:.2f}",
        ),
        Row(
            f"{size}, {WAYS[way]}: … over a run of its recipe",
            f"{run:.3f}",
            f"≤ {most}" if most else "",
            run <= most if most else None,
            f"{read} of {steps} steps; the others count 1, those after them take "
            f"{1 + found.later:.3f}",
        ),
    ]


def rows() -> list[Row]:
    """Measure nano and micro."""
    table = []
    for size in MOST:
        names = ("stratified", *WAYS)
        commands = {name: ["-m", "benchmarks.baselines", name, size] for name in names}
        times = interleave_steps(commands, ROUNDS, WARM_UP, threads=1, processor=True)
        for way in WAYS:
            table += rows_of(size, way, extra(times[way], times["stratified"]))
    return table
