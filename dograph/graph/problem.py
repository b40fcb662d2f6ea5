"""A quadratic program on the simplex, and how far weights are from solving it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf

Array = npt.NDArray[np.float64]
RIDGE = 1e-6
TOLERANCE = 1e-5  # by which a solver's answer may violate a constraint
LARGEST_GAP = 1e-4  # relative to the objective's largest coefficient
LARGEST_LIFT = 1e-3  # relative to the largest entry: far above float32's rounding


@dataclass(frozen=True)
class SimplexProgram:
    """Minimise ``wᵀHw + c·w``, ``lower ≤ w ≤ upper``, ``Σ w = 1``, ``|A w| ≤ limits``.

    Attributes:
        quadratic: (m, m) H, symmetric positive semi-definite.
        linear: (m,) c.
        lower: (m,) lower bounds ≥ 0 of sum < 1.
        upper: (m,) upper bounds ≥ ``lower`` of sum ≥ 1; 1 for none.
        rows: (r, m) A; r = 0 for no such constraints.
        limits: (r,) ≥ 0.
    """

    quadratic: Array
    linear: Array
    lower: Array
    upper: Array
    rows: Array
    limits: Array

    def objective(self, weights: Array) -> float:
        """``wᵀHw + c·w``."""
        return float((self.quadratic @ weights + self.linear) @ weights)

    def violation(self, weights: Array) -> float:
        """By how much the worst constraint is violated; ≤ 0 for feasible weights."""
        outside = np.maximum(self.lower - weights, weights - self.upper)
        worst = max(abs(weights.sum() - 1), outside.max())
        if len(self.limits):
            worst = max(worst, (np.abs(self.rows @ weights) - self.limits).max())
        return float(worst)

    def gradient(self, weights: Array) -> Array:
        """(m,) gradient of the objective."""
        gradient: Array = 2 * self.quadratic @ weights + self.linear
        return gradient

    def duality_gap(self, weights: Array, duals: Array) -> float:
        """Bound on how far the objective is above its minimum.

        Args:
            weights: (m,) feasible.
            duals: (r,) multipliers y of ``A w``, positive at the upper limit. Any are valid by weak
                duality, ``∇f·v ≥ (∇f + Aᵀy)·v − limits·|y|``; the optimal ones make the bound 0 at
                the minimum. Without rows it is the Frank-Wolfe gap.
        """
        gradient = self.gradient(weights)
        reduced = gradient + duals @ self.rows if len(duals) else gradient
        # The smallest value within the bounds: what is above the lower ones goes to the cheapest.
        cheapest = reduced.argsort()
        room = (self.upper - self.lower)[cheapest].cumsum()
        extra = np.diff(np.minimum(room, 1 - self.lower.sum()), prepend=0.0)
        smallest = self.lower @ reduced + extra @ reduced[cheapest]
        return float(gradient @ weights - smallest + np.abs(duals) @ self.limits)

    def verified(self, answer: Array, duals: Array) -> Array:
        """(m,) a solver's answer, on the simplex to the last bit; ArithmeticError if wrong."""
        # No solver's status is asked: its answer has to prove itself.
        if not self.violation(answer) <= TOLERANCE:
            raise ArithmeticError("the solver's answer is not finite or breaks a constraint")
        free = (answer - self.lower).clip(0)
        weights: Array = self.lower + (1 - self.lower.sum()) * (free / free.sum())
        if not self.duality_gap(weights, duals) <= LARGEST_GAP:
            raise ArithmeticError("the solver's answer is not optimal")
        return weights


def normalise(parts: Iterable[Array]) -> tuple[SimplexProgram, float]:
    """Builds the program with coefficients near 1, and tells what they were divided by.

    Neither a common factor nor a common shift of c moves the minimum. ArithmeticError if an input
    is not finite or of another size, or H indefinite by more than float32's rounding.

    Args:
        parts: H, symmetric or not, c, lower, upper, A and limits, as in ``SimplexProgram``.
    """
    quadratic, linear, lower, upper, rows, limits = parts = tuple(parts)
    if not all(np.isfinite(part).all() for part in parts):
        raise ArithmeticError("a kernel, spread, count or coefficient is not finite")
    m = len(linear)
    if quadratic.shape != (m, m) or not lower.shape == upper.shape == (m,):
        raise ArithmeticError("a kernel, spread or count is of another size")  # a solver crashes
    linear = linear - linear.min()
    size = max(float(np.abs(quadratic).max()), float(linear.max())) or 1.0
    scaled = (quadratic + quadratic.T) / (2 * size)
    _, indefinite = dpotrf(scaled)
    if indefinite:
        # A kernel computed in float32 can be indefinite by its rounding: lift it by that much.
        lift = RIDGE - np.linalg.eigvalsh(scaled)[0]
        if not lift <= LARGEST_LIFT:
            raise ArithmeticError("K is not positive semi-definite")
        scaled = scaled + lift * np.eye(len(scaled))
    return SimplexProgram(scaled, linear / size, lower, upper, rows, limits), size
