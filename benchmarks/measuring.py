"""Rows of the tables, and how their figures are measured: interleaved, as medians and ratios."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        quantity: name of what was measured.
        figure: the value as printed, with its unit.
        target: the required value; empty if none.
        holds: whether the figure meets the target; None without target or measurement.
        note: how it was measured, and why it misses its target.
    """

    quantity: str
    figure: str
    target: str = ""
    holds: bool | None = None
    note: str = ""


Clock = Callable[[], float]


def seconds(action: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one call."""
    start = clock()
    action()
    return clock() - start


def interleaved(
    actions: dict[str, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of every action in each round, after an uncounted first round.

    The order rotates by one each round, so that none always follows the same neighbour. With
    ``time.process_time`` as clock they are what the actions would take on an idle machine.
    """
    names = list(actions)
    for name in names:
        actions[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(seconds(actions[name], clock))
    return times


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median over rounds of the ratio of two times in the same round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def growth(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit ``value ∝ sizeᵖ`` by a line through the logarithms and return p."""
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope
