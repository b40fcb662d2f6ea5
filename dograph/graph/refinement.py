"""From a solver's answer to the exact minimum, and its derivative.

An interior-point answer is known to some 1e-9, a cone solver's only to the square root of its
1e-12. Which constraints bind is clear by then, and given these the minimum is the solution of a
linear system (the "polish" of OSQP, Stellato et al. 2020), which the implicit function theorem
also takes for the derivative (as OptNet does, Amos and Kolter 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import qr
from scipy.linalg.lapack import dgetrf, dgetrs

from dograph.graph.programme import SMALLEST, Array, Programme

EXACT = 1e-9
ROUNDING = 1e-15
DEPENDENT = 1e-9  # rows are of 1, −1 or shares of clusters: what is smaller than this is rounding
NEWTON_STEPS = 8
TIGHTENED = 5  # times at most


class Slopes(NamedTuple):
    """Derivatives of a scalar by a programme's data, in its fields' shapes."""

    quadratic: Array
    linear: Array
    lowest: Array
    rows: Array
    limits: Array


@dataclass(frozen=True)
class Face:
    """The part of the feasible set on which some constraints bind.

    Attributes:
        programme: the problem.
        low: (m,) bool, which weights are at their lowest.
        side: (r,) 1 where ``A w`` is at its upper limit, −1 at its lower, else 0.
    """

    programme: Programme
    low: np.ndarray
    side: np.ndarray

    @cached_property
    def bound(self) -> np.ndarray:
        """Numbers of the binding rows, less those that the sum and the others imply."""
        bound = self.side.nonzero()[0]
        if not len(bound):
            return bound
        columns = self.programme.rows[bound][:, ~self.low].T
        centred = columns - columns.mean(axis=0)
        triangle, order = qr(centred, mode="r", pivoting=True)
        size = np.abs(triangle.diagonal())
        enough = size > DEPENDENT * size.max(initial=1.0)
        kept: np.ndarray = np.sort(bound[order[: len(size)][enough]])
        return kept

    @cached_property
    def system(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors of the optimality system of the free weights and the multipliers."""
        free, count = (~self.low).nonzero()[0], 1 + len(self.bound)
        size = len(free)
        system = np.zeros((size + count, size + count))
        # In units of H: then a small H is as well conditioned as a large one.
        system[:size, :size] = self.programme.quadratic[np.ix_(free, free)] / self.unit
        system[size, :size] = 1
        system[size + 1 :, :size] = self.programme.rows[np.ix_(self.bound, free)]
        system[:size, size:] = system[size:, :size].T
        # LAPACK itself: scipy's checks and numpy's copies take longer than 11 domains' system.
        factors, pivots, _ = dgetrf(system)
        return factors, pivots

    @cached_property
    def unit(self) -> float:
        """Largest entry of H among the free weights; 1 where that is 0."""
        return float(np.abs(self.programme.quadratic.diagonal()[~self.low]).max(initial=0)) or 1.0

    def solve(self, above: Array, below: Array) -> tuple[Array, Array]:
        """``(u, v)`` with ``2Hu + Bᵀv = above`` at the free weights and ``Bu = below``."""
        size = len(above)
        right = np.concatenate([above / (2 * self.unit), below])
        solution, _ = dgetrs(*self.system, right)
        return solution[:size], solution[size:] * 2 * self.unit

    @cached_property
    def minimum(self) -> tuple[Array, Array]:
        """(m,) the minimum on this face, and the (1 + b,) multipliers of sum and binding rows."""
        at = self.programme
        rest = np.where(self.low, at.lowest, 0.0)
        slope = 2 * at.quadratic @ rest + at.linear
        target = self.side[self.bound] * at.limits[self.bound] - at.rows[self.bound] @ rest
        free, multipliers = self.solve(
            -slope[~self.low], np.concatenate([[1 - rest.sum()], target])
        )
        rest[~self.low] = free
        return rest, multipliers

    def tightened(self, weights: Array) -> Face:
        """The face on which what ``weights`` break binds, too."""
        at, difference = self.programme, self.programme.rows @ weights
        broken = np.abs(difference) > at.limits + EXACT
        low = self.low | (weights < at.lowest - EXACT)
        return Face(at, low, np.where(broken, np.sign(difference), self.side))

    def signs_right(self, weights: Array, multipliers: Array) -> bool:
        """Whether no binding constraint keeps the weights from something better."""
        at, bound = self.programme, self.bound
        pressed = at.slope(weights) + multipliers[1:] @ at.rows[bound] + multipliers[0]
        one_sided = np.where(at.limits[bound] > 0, self.side[bound], 0)
        return bool(
            (pressed[self.low] >= -EXACT).all() and (one_sided * multipliers[1:] >= -EXACT).all()
        )

    def slopes(self, upstream: Array) -> Slopes:
        """Derivatives of what has the derivative ``upstream`` (m,) by the weights.

        With R = 0 the optimality system and J its matrix, dw = −J⁻¹ dR; J is symmetric, so one
        solve for ``upstream`` serves all data.
        """
        at, low, bound = self.programme, self.low, self.bound
        weights, multipliers = self.minimum
        u = np.zeros_like(weights)
        u[~low], v = self.solve(upstream[~low], np.zeros(1 + len(bound)))
        rows, limits = np.zeros_like(at.rows), np.zeros_like(at.limits)
        rows[bound] = -np.outer(multipliers[1:], u) - np.outer(v[1:], weights)
        limits[bound] = self.side[bound] * v[1:]
        lowest = upstream - 2 * at.quadratic @ u - v[0] - v[1:] @ at.rows[bound]
        outer = np.outer(u, weights)
        return Slopes(-outer - outer.T, -u, np.where(low, lowest, 0.0), rows, limits)


def refine(face: Face, found: Array) -> tuple[Array, Face]:
    """The exact minimum, if what seems to bind at ``found`` does.

    Args:
        face: of what seems to bind; its programme has no entropy.
        found: (m,) a solver's answer.

    Returns:
        (m,) the minimum on the face, and the face, tightened while its minimum breaks constraints
        (along a direction in which the objective is all but flat, a solver cannot tell what
        binds). ``found`` itself where that does not end well, or where a multiplier has the wrong
        sign and nothing is gained: then the minimum is elsewhere.
    """
    programme, tight = face.programme, face
    for _ in range(TIGHTENED):
        if tight.low.all():
            return found, face
        weights, multipliers = tight.minimum
        if programme.violation(weights) <= EXACT:
            break
        tight = tight.tightened(weights)
    else:
        return found, face
    # Constraints that depend on each other have multipliers of any sign; the objective then tells.
    gain = programme.objective(found) - programme.objective(weights)
    if tight.signs_right(weights, multipliers) or gain >= -ROUNDING:
        return weights, tight
    return found, face


def entropic_minimum(programme: Programme, found: Array) -> Array:
    """The minimum with an entropy and no rows, by Newton's method in ratios from ``found``.

    In ratios small weights become as exact as large ones.
    """
    weights = np.maximum(found.clip(SMALLEST), programme.lowest)
    for _ in range(NEWTON_STEPS):
        slope = programme.slope(weights)
        free = weights > programme.lowest + EXACT
        curvature = 2 * programme.quadratic + np.diag(programme.entropy / weights)
        size = int(free.sum())
        system = np.zeros((size + 1, size + 1))
        system[:size, :size] = curvature[np.ix_(free, free)]
        system[:size, size] = system[size, :size] = 1
        step = np.linalg.solve(system, np.append(-slope[free], 0.0))[:-1]
        ratio = np.exp((step / weights[free]).clip(-1, 1))
        weights[free] = np.maximum(weights[free] * ratio, programme.lowest[free])
        weights[free] *= (1 - weights[~free].sum()) / weights[free].sum()
    return weights
