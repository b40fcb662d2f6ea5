"""Means over seeds, how sure they are, and verdicts on paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import ncf as noncentral_f
from scipy.stats import t as student
from scipy.stats import ttest_1samp

Verdict = Literal["win", "ahead", "tie", "behind", "loss"]
CONFIDENCE = 0.95
POWER = 0.8
"""Of a difference that a study is said to detect: four of five such studies find it."""
FEWEST_SEEDS = 5
"""For a claim; fewer show a direction."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds' values, and half the width of its 95 % interval; None for one value."""

    mean: float
    half: float | None
    values: tuple[float, ...]

    @property
    def spread(self) -> float | None:
        """The values' standard deviation; None for one value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval's ends."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean ± ``t(0.975, n − 1) · s / √n`` of n ≥ 1 values."""
    numbers, count, half = np.asarray(values, dtype=np.float64), len(values), None
    if count > 1:
        spread = float(numbers.std(ddof=1)) / math.sqrt(count)
        half = float(student.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread
    return Estimate(float(numbers.mean()), half, tuple(map(float, values)))


def verdict(difference: Estimate, p: float) -> Verdict:
    """Whether a method's loss, less the baseline's of the same seed, is surely not zero.

    Of fewer than ``FEWEST_SEEDS`` pairs it is "ahead" or "behind", since that is no claim. ``p`` is
    two-sided, adjusted for all methods that are looked at together.
    """
    if not p < 1 - CONFIDENCE:
        return "tie"
    claimed = len(difference.values) >= FEWEST_SEEDS
    if difference.mean < 0:
        return "win" if claimed else "ahead"
    return "loss" if claimed else "behind"


def p_value(differences: Sequence[float]) -> float:
    """Two-sided p of a paired t-test; 1 for one pair, and where nothing differs."""
    numbers = np.asarray(differences, dtype=np.float64)
    if len(numbers) < 2 or not numbers.any():
        return 1.0
    if not _varies(differences):  # the same difference with every seed
        return 0.0
    return float(ttest_1samp(numbers, 0.0).pvalue)


def _varies(values: Sequence[float]) -> bool:
    """Whether values differ by more than rounding."""
    return float(np.ptp(values)) > 1e-12 * abs(values[0])


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being looked at together (Holm 1979), in their own order."""
    order = np.argsort(p_values)
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """Below which p each would be claimed by Holm's steps, all others being as they are."""
    count, levels = len(p_values), list[float]()
    for index in range(count):
        others, passed = sorted([*p_values[:index], *p_values[index + 1 :]]), 0
        while passed < count - 1 and (count - passed) * others[passed] < 1 - CONFIDENCE:
            passed += 1
        levels.append((1 - CONFIDENCE) / (count - passed))
    return levels


def detectable(differences: Estimate, level: float) -> float | None:
    """The smallest true mean that a paired t-test finds with probability ``POWER``.

    None for one pair, and where nothing varies between seeds, so that the noise is not known.

    Its test statistic follows a noncentral t distribution, by ``δ √n / s``, and the square of that
    a noncentral F. The standard deviation s is the one at hand, which few seeds tell badly.

    Args:
        differences: n paired differences, of which only n and s count.
        level: largest two-sided p that is claimed.
    """
    if differences.spread is None or not _varies(differences.values):
        return None
    count, freedom = len(differences.values), len(differences.values) - 1
    edge = float(student.isf(level / 2, freedom))

    def short_of_power(shift: float) -> float:
        return float(noncentral_f.sf(edge**2, 1, freedom, shift**2)) - POWER

    shift = float(brentq(short_of_power, 0, 2 * edge + 5))
    return shift * differences.spread / math.sqrt(count)


def first_reach(places: Sequence[float], losses: Sequence[float], target: float) -> float | None:
    """Where a loss curve first comes down to a target; None if it never does.

    Args:
        places: n positions of the points, rising (tokens or seconds).
        losses: n losses.
        target: what to reach.

    Returns:
        the position, linear between two points; the first point's if that is low enough.
    """
    for index, (place, loss) in enumerate(zip(places, losses, strict=True)):
        if not loss <= target:  # NaN, too
            continue
        if index == 0 or not losses[index - 1] > target:
            return float(place)
        before, above = places[index - 1], losses[index - 1]
        return float(before + (place - before) * (above - target) / (above - loss))
    return None
