"""What DoGraph's schedule adds to training: while it measures, and over a run of its recipe.

Stratified and the schedule, without and with an unseen target to probe, train in processes of their
own; their steps are interleaved. To be short, they measure for fewer steps than the recipe does and
update more often; the figures weigh each kind of step as often as the recipe has it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.baselines import RECIPES, SCHEDULE_INTERVAL, SCHEDULE_MEASURE, SIZES
from benchmarks.interleaved import interleave_steps
from benchmarks.measuring import Row
from benchmarks.training import THREADS
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.mixers import DoGraphSchedule

MOST = {"nano": 1.05, "micro": 1.03}
"""Largest ratio over a run without a probe, by size."""
WARM_UP, ROUNDS = 5, 35
WAYS = {"schedule": "even target", "probed": "one unseen target"}
"""Processes beside Stratified's, and what their runs aim at."""


@dataclass(frozen=True)
class Extra:
    """Medians of what steps take longer than Stratified's, in steps.

    Attributes:
        measuring: a step while gradients are measured.
        update: such a step with an update: the probe, and means over time.
        solve: the last of these, which also computes the kernel and solves.
        later: a step after that.
    """

    measuring: float
    update: float
    solve: float
    later: float

    def while_measuring(self, interval: int) -> float:
        """Mean over an interval."""
        return ((interval - 1) * self.measuring + self.update) / interval

    def over_run(self, interval: int, measure: int, steps: int) -> float:
        """Mean over a run, whose later steps count as Stratified's."""
        once = self.solve - self.update
        return (measure * self.while_measuring(interval) + once) / steps


def extra(times: Sequence[float], stratified: Sequence[float]) -> Extra:
    """Sort the steps of all rounds by kind."""
    more = {
        WARM_UP + number: own / plain - 1
        for number, (own, plain) in enumerate(zip(times, stratified, strict=True))
    }
    updates = {step for step in more if (step + 1) % SCHEDULE_INTERVAL == 0}
    solve = SCHEDULE_MEASURE - 1
    measuring = {step for step in more if step < solve}

    def median(steps: set[int]) -> float:
        return statistics.median(more[step] for step in steps)

    later = {step for step in more if step > solve}
    return Extra(
        median(measuring - updates), median(measuring & updates), more[solve], median(later)
    )


def rows_of(size: str, way: str, found: Extra) -> list[Row]:
    """Figures of one size and target, at the defaults and the recipe's number of steps."""
    mixer = DoGraphSchedule()
    interval, measure = mixer.update_every, mixer.measure
    recipe = check(compose(RECIPES / "dograph_schedule_gpt2.yaml", [f"compose.model=gpt2_{size}"]))
    steps = int(recipe.trainer["max_steps"])
    what = f"{size}, {WAYS[way]}"
    run = 1 + found.over_run(interval, measure, steps)
    most = MOST[size] if way == "schedule" else None
    kinds = (
        f"a step takes {1 + found.measuring:.3f} of Stratified's, one with an update "
        f"{1 + found.update:.2f}, the one that solves first {1 + found.solve:.2f}"
    )
    later = f"{measure} of {steps} steps measure; later ones take {1 + found.later:.3f}"
    return [
        Row(
            f"{what}: training over Stratified while the schedule measures",
            f"{1 + found.while_measuring(interval):.3f}",
            note=kinds,
        ),
        Row(
            f"{what}: … over a run of its recipe",
            f"{run:.3f}",
            f"≤ {most}" if most else "",
            run <= most if most else None,
            later,
        ),
    ]


def rows() -> list[Row]:
    """Measure nano and micro."""
    table = []
    for size in MOST:
        names = ("stratified", *WAYS)
        commands = {name: ["-m", "benchmarks.baselines", name, size] for name in names}
        times = interleave_steps(commands, ROUNDS, WARM_UP, THREADS)
        for way in WAYS:
            table += rows_of(size, way, extra(times[way], times["stratified"]))
    return table
