"""A quadratic (or entropic) programme on the simplex, and how far weights are from solving it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf

Array = npt.NDArray[np.float64]
RIDGE = 1e-6
TOLERANCE = 1e-5
LARGEST_GAP = 1e-4  # relative to the objective's largest coefficient
LARGEST_LIFT = 1e-3  # relative to the largest entry: far above float32's rounding
SMALLEST = 1e-12  # weights whose logarithm is taken


@dataclass(frozen=True)
class Programme:
    """Minimise ``wᵀHw + c·w + μ Σ w ln w``, ``w ≥ lowest``, ``Σ w = 1``, ``|A w| ≤ limits``.

    Attributes:
        quadratic: (m, m) H, symmetric positive semi-definite.
        linear: (m,) c.
        lowest: (m,) the smallest weights allowed, ≥ 0, of sum < 1.
        rows: (r, m) A; r = 0 for no such constraints.
        limits: (r,) ≥ 0.
        entropy: μ ≥ 0.
    """

    quadratic: Array
    linear: Array
    lowest: Array
    rows: Array
    limits: Array
    entropy: float = 0.0

    def objective(self, weights: Array) -> float:
        """``wᵀHw + c·w``."""
        return float((self.quadratic @ weights + self.linear) @ weights)

    def violation(self, weights: Array) -> float:
        """By how much the worst constraint is violated; ≤ 0 for feasible weights."""
        worst = max(abs(weights.sum() - 1), (self.lowest - weights).max())
        if len(self.limits):
            worst = max(worst, (np.abs(self.rows @ weights) - self.limits).max())
        return float(worst)

    def slope(self, weights: Array) -> Array:
        """(m,) the objective's gradient."""
        slope = 2 * self.quadratic @ weights + self.linear
        if self.entropy:
            slope = slope + self.entropy * (np.log(weights.clip(SMALLEST)) + 1)
        return slope

    def gap(self, weights: Array, pressure: Array) -> float:
        """How far the objective can be above its minimum at feasible weights, at most.

        Args:
            weights: (m,) feasible.
            pressure: (r,) multipliers y of ``A w``, of their limit's sign. Any are valid by weak
                duality, ``slope·v ≥ (slope + Aᵀy)·v − limits·|y|``; the minimum's own make the
                bound 0 there. Without rows it is Frank and Wolfe's.
        """
        slope = self.slope(weights)
        pressed = slope + pressure @ self.rows if len(pressure) else slope
        least = self.lowest @ pressed + (1 - self.lowest.sum()) * pressed.min()
        return float(slope @ weights - least + np.abs(pressure) @ self.limits)

    def checked(self, found: Array, pressure: Array) -> Array:
        """(m,) the same on the simplex to the last bit.

        Raises:
            ArithmeticError: if they break a constraint or the objective can be lower.
        """
        # No solver's status is asked: its answer has to speak for itself.
        if not self.violation(found) <= TOLERANCE:
            raise ArithmeticError("the solver's answer is not finite or breaks a constraint")
        free = (found - self.lowest).clip(0)
        weights: Array = self.lowest + (1 - self.lowest.sum()) * (free / free.sum())
        if not self.gap(weights, pressure) <= LARGEST_GAP:
            raise ArithmeticError("the solver's answer is not optimal")
        return weights


def normalised(parts: Iterable[Array], entropy: float = 0.0) -> tuple[Programme, float]:
    """The programme with coefficients near 1, and what they were divided by.

    Neither a common factor nor a common shift of c moves the minimum.

    Args:
        parts: H, symmetric or not, c, lowest, A and limits, as in ``Programme``.
        entropy: μ.

    Raises:
        ArithmeticError: if an input is not finite, or H indefinite by more than float32's rounding.
    """
    quadratic, linear, lowest, rows, limits = parts = tuple(parts)
    if not all(np.isfinite(part).all() for part in parts) or not np.isfinite(entropy):
        raise ArithmeticError("a kernel, spread, count or coefficient is not finite")
    linear = linear - linear.min()
    size = max(float(np.abs(quadratic).max()), float(linear.max()), entropy) or 1.0
    scaled = (quadratic + quadratic.T) / (2 * size)
    _, indefinite = dpotrf(scaled)
    if indefinite:
        # A kernel computed in float32 can be indefinite by its rounding: lift it by that much.
        lift = RIDGE - np.linalg.eigvalsh(scaled)[0]
        if not lift <= LARGEST_LIFT:
            raise ArithmeticError("K is not positive semi-definite")
        scaled = scaled + lift * np.eye(len(scaled))
    return Programme(scaled, linear / size, lowest, rows, limits, entropy / size), size
