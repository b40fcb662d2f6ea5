"""How things are measured here: turn by turn in one process, by medians, as ratios."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        quantity: what was measured, in the field's words.
        figure: as it is printed, with its unit.
        target: what was asked; empty for a figure that only informs.
        holds: whether the figure keeps the target. None: nothing was asked, or not measured.
        note: how it was measured; where it falls short, the reason.
    """

    quantity: str
    figure: str
    target: str = ""
    holds: bool | None = None
    note: str = ""


def seconds(action: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleaved(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every action in each of ``rounds`` rounds, after one that is not counted.

    The order turns by one each round, so that none always follows the same neighbour.
    """
    names = list(actions)
    for name in names:
        actions[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(seconds(actions[name]))
    return times


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median over rounds of one's time over the other's in the same round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def growth(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of the best fit ``value ∝ sizeᵖ``: the slope of a line through the logarithms."""
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope
