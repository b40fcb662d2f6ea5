"""From a solver's answer to the exact minimum on its active set, and the minimum's derivative.

An interior-point answer is accurate to some 1e-9, a cone solver's only to the square root of its
1e-12. Which constraints bind is clear by then, and given these the minimum is the solution of a
linear system (the "polish" of OSQP, Stellato et al. 2020), from which the implicit function theorem
also takes the derivative (as OptNet does, Amos and Kolter 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import qr
from scipy.linalg.lapack import dgetrf, dgetrs

from dograph.graph.problem import Array, SimplexProgram

EXACT = 1e-9
ROUNDING = 1e-15
DEPENDENT = 1e-9  # rows are of 1, −1 or shares of clusters: what is smaller than this is rounding
MAX_TIGHTENINGS = 5


@dataclass(frozen=True)
class ActiveSet:
    """The constraints of a program that bind.

    Attributes:
        program: the problem.
        at_lower: (m,) bool, which weights are at their lower bound.
        at_upper: (m,) bool, which others are at their upper bound.
        side: (r,) 1 where ``A w`` is at its upper limit, −1 at its lower, else 0.
    """

    program: SimplexProgram
    at_lower: np.ndarray
    at_upper: np.ndarray
    side: np.ndarray

    @cached_property
    def free(self) -> np.ndarray:
        """(m,) bool, which weights are at no bound."""
        return ~(self.at_lower | self.at_upper)

    @cached_property
    def binding(self) -> np.ndarray:
        """Numbers of the binding rows, less those that the sum and the others imply."""
        binding = self.side.nonzero()[0]
        if not len(binding):
            return binding
        columns = self.program.rows[binding][:, self.free].T
        centred = columns - columns.mean(axis=0)
        triangle, order = qr(centred, mode="r", pivoting=True)
        size = np.abs(triangle.diagonal())
        independent = size > DEPENDENT * size.max(initial=1.0)
        kept: np.ndarray = np.sort(binding[order[: len(size)][independent]])
        return kept

    @cached_property
    def kkt_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """LU factors of the KKT system of the free weights and the multipliers."""
        free, count = self.free.nonzero()[0], 1 + len(self.binding)
        size = len(free)
        system = np.zeros((size + count, size + count))
        # In units of H: then a small H is as well conditioned as a large one.
        system[:size, :size] = self.program.quadratic[np.ix_(free, free)] / self.unit
        system[size, :size] = 1
        system[size + 1 :, :size] = self.program.rows[np.ix_(self.binding, free)]
        system[:size, size:] = system[size:, :size].T
        # LAPACK itself: scipy's checks and numpy's copies take longer than 11 domains' system.
        factors, pivots, _ = dgetrf(system)
        return factors, pivots

    @cached_property
    def unit(self) -> float:
        """Largest entry of H among the free weights; 1 where that is 0."""
        diagonal = self.program.quadratic.diagonal()[self.free]
        return float(np.abs(diagonal).max(initial=0)) or 1.0

    def solve_kkt(self, above: Array, below: Array) -> tuple[Array, Array]:
        """``(u, v)`` with ``2Hu + Bᵀv = above`` at the free weights and ``Bu = below``."""
        size = len(above)
        right = np.concatenate([above / (2 * self.unit), below])
        solution, _ = dgetrs(*self.kkt_factors, right)
        return solution[:size], solution[size:] * 2 * self.unit

    @cached_property
    def minimum(self) -> tuple[Array, Array]:
        """(m,) minimum on the active set, and (1 + b,) multipliers of sum and binding rows."""
        at, binding = self.program, self.binding
        weights = np.where(self.at_lower, at.lower, np.where(self.at_upper, at.upper, 0.0))
        gradient = 2 * at.quadratic @ weights + at.linear
        target = self.side[binding] * at.limits[binding] - at.rows[binding] @ weights
        free, multipliers = self.solve_kkt(
            -gradient[self.free], np.concatenate([[1 - weights.sum()], target])
        )
        weights[self.free] = free
        return weights, multipliers

    def tightened(self, weights: Array) -> ActiveSet:
        """The active set with the constraints that ``weights`` violate."""
        at, difference = self.program, self.program.rows @ weights
        violated = np.abs(difference) > at.limits + EXACT
        side = np.where(violated, np.sign(difference), self.side)
        at_lower = self.at_lower | (weights < at.lower - EXACT)
        # An upper bound of 1 is none: with the sum, the others' lower bounds imply it.
        at_upper = self.at_upper | ((weights > at.upper + EXACT) & (at.upper < 1))
        return ActiveSet(at, at_lower, at_upper & ~at_lower, side)

    def is_dual_feasible(self, weights: Array, multipliers: Array) -> bool:
        """Whether no binding constraint keeps the weights from something better."""
        at, binding = self.program, self.binding
        reduced = at.gradient(weights) + multipliers[1:] @ at.rows[binding] + multipliers[0]
        one_sided = np.where(at.limits[binding] > 0, self.side[binding], 0)
        movable = at.upper > at.lower
        return bool(
            (reduced[self.at_lower & movable] >= -EXACT).all()
            and (reduced[self.at_upper & movable] <= EXACT).all()
            and (one_sided * multipliers[1:] >= -EXACT).all()
        )

    def gradients(self, upstream: Array) -> tuple[Array, ...]:
        """Derivatives by H, c, lower, upper, A and limits of what has ``upstream`` by the weights.

        With R = 0 the KKT system and J its matrix, dw = −J⁻¹ dR; J is symmetric, so one solve for
        ``upstream`` serves all data.
        """
        at, binding = self.program, self.binding
        if not self.free.any():  # a corner, which its bounds alone move
            still = (np.zeros_like(part) for part in (at.quadratic, at.linear))
            bounds = (np.where(bound, upstream, 0.0) for bound in (self.at_lower, self.at_upper))
            return *still, *bounds, np.zeros_like(at.rows), np.zeros_like(at.limits)
        weights, multipliers = self.minimum
        u = np.zeros_like(weights)
        u[self.free], v = self.solve_kkt(upstream[self.free], np.zeros(1 + len(binding)))
        rows, limits = np.zeros_like(at.rows), np.zeros_like(at.limits)
        rows[binding] = -np.outer(multipliers[1:], u) - np.outer(v[1:], weights)
        limits[binding] = self.side[binding] * v[1:]
        bound = upstream - 2 * at.quadratic @ u - v[0] - v[1:] @ at.rows[binding]
        lower, upper = np.where(self.at_lower, bound, 0.0), np.where(self.at_upper, bound, 0.0)
        outer = np.outer(u, weights)
        return -outer - outer.T, -u, lower, upper, rows, limits


def polish(active: ActiveSet, answer: Array) -> tuple[Array, ActiveSet]:
    """Finds the exact minimum, if what seems to bind at a solver's answer does.

    Args:
        active: what seems to bind.
        answer: (m,) a solver's.

    Returns:
        (m,) the minimum on the active set, and the set, tightened while its minimum violates
        constraints (along a direction in which the objective is all but flat, a solver cannot tell
        what binds). ``answer`` itself where that does not end well, or where a multiplier has the
        wrong sign and nothing is gained: then the minimum is elsewhere.
    """
    program, tight = active.program, active
    for _ in range(MAX_TIGHTENINGS):
        if not tight.free.any():
            return answer, active
        weights, multipliers = tight.minimum
        if program.violation(weights) <= EXACT:
            break
        tight = tight.tightened(weights)
    else:
        return answer, active
    # Constraints that depend on each other have multipliers of any sign; the objective then tells.
    gain = program.objective(answer) - program.objective(weights)
    if tight.is_dual_feasible(weights, multipliers) or gain >= -ROUNDING:
        return weights, tight
    return answer, active
