"""The mixtures that limits allow: a polytope, the nearest one in it, and what each limit costs."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize, nnls

from dograph.graph.bounds import Bound, Bounds
from dograph.graph.problem import Array

Distance = Literal["kl", "euclidean"]
EXACT = 1e-7
"""By how much an answer may break a limit."""
ROUNDING = 1e-9
"""By how much a mixture that is left as it is may break one."""
BINDS = 1e-6
"""How near a limit counts as reached."""
LEAST = 1e-12
"""Share that a domain of weight 0 has where a limit forces weight on it."""


@dataclass(frozen=True)
class Polytope:
    """Mixtures w on the simplex with ``lower ≤ w ≤ upper``, ``low ≤ A w ≤ high``.

    Attributes:
        bounds: those that it was made of.
        lower: (S,) ≥ 0.
        upper: (S,) ≤ 1; 0 for a domain that is not drawn.
        rows: (r, S) A, of the bounds on more than one domain.
        low: (r,).
        high: (r,).
    """

    bounds: Bounds
    lower: Array
    upper: Array
    rows: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, bounds: Sequence[Bound] | Bounds, drawn: np.ndarray) -> Polytope:
        """The polytope of some bounds; ``drawn`` (S,) is False for domains that stay at 0."""
        if not isinstance(bounds, Bounds):
            bounds = Bounds.of(bounds, len(drawn))
        single, lower, upper = bounds.single, np.zeros(len(drawn)), drawn.astype(float)
        np.maximum.at(lower, bounds.domain[single], bounds.low[single])
        np.minimum.at(upper, bounds.domain[single], bounds.high[single])
        wide = ~single
        return cls(bounds, lower, upper, bounds.rows[wide], bounds.low[wide], bounds.high[wide])

    def among(self, kept: np.ndarray) -> Polytope:
        """The same over the domains that are ``kept`` (S,); the others' weights are 0."""
        return Polytope.of(self.bounds.among(kept), self.upper[kept] > 0)

    def violation(self, weights: Array) -> float:
        """By how much (S,) weights of sum 1 break the worst limit; ≤ 0 for allowed ones."""
        worst = max((self.lower - weights).max(), (weights - self.upper).max())
        if len(self.rows):
            values = self.rows @ weights
            worst = max(worst, (self.low - values).max(), (values - self.high).max())
        return float(worst)

    def project(self, weights: Array, distance: Distance = "kl") -> Array:
        """(S,) the allowed mixture w nearest to the (S,) mixture p; p itself where it is allowed.

        "kl" minimises ``Σ w log(w/p)``, which keeps the ratios of weights that no limit holds;
        "euclidean" minimises ``½ ‖w − p‖²``. Both by their dual: given a multiplier for each row,
        ``w = clip(p exp(μ − Aᵀy))`` or ``clip(p + μ − Aᵀy)``, and μ follows exactly.

        Raises:
            ArithmeticError: where no mixture is allowed, or none was found.
        """
        if self.violation(weights) <= ROUNDING:
            return weights
        if self.lower.sum() > 1 + EXACT or self.upper.sum() < 1 - EXACT:
            raise ArithmeticError("no mixture keeps all limits")
        if not len(self.rows):
            return self._within_box(weights, np.zeros(len(weights)), distance)
        upper, lower = np.isfinite(self.high), np.isfinite(self.low)
        rows = np.concatenate([self.rows[upper], -self.rows[lower]])
        most = np.concatenate([self.high[upper], -self.low[lower]])

        def negative_dual(y: Array) -> tuple[float, Array]:
            answer = self._within_box(weights, y @ rows, distance)
            excess = rows @ answer - most
            return -float(_distance(answer, weights, distance) + y @ excess), -excess

        options = {"maxiter": 500, "ftol": 1e-16, "gtol": EXACT / 10, "maxls": 50}
        solved = minimize(
            negative_dual,
            np.zeros(len(rows)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None)] * len(rows),
            options=options,
        )
        answer = self._within_box(weights, solved.x @ rows, distance)
        if not self.violation(answer) <= EXACT:
            raise ArithmeticError("no mixture keeps all limits, or none was found")
        return answer

    def _within_box(self, weights: Array, push: Array, distance: Distance) -> Array:
        """(S,) ``clip(base + t rate)`` of sum 1; ``push`` (S,) is ``Aᵀy``."""
        if distance == "kl":
            base = np.zeros(len(weights))
            exponent = np.log(np.maximum(weights, LEAST)) - push
            rate = np.exp(exponent - exponent.max()).clip(1e-300)
        else:
            base, rate = weights - push, np.ones(len(weights))
        points = np.sort(np.concatenate([self.lower - base, self.upper - base]) / np.tile(rate, 2))

        def total(t: float) -> float:
            return float(np.clip(base + t * rate, self.lower, self.upper).sum())

        # The sum rises with t, and is linear between the points where a weight reaches a bound.
        last = min(bisect.bisect_left(points, 1.0, key=total), len(points) - 1)
        ends = points[max(last - 1, 0)], points[last]
        t = float(np.interp(1.0, [total(end) for end in ends], ends))
        answer: Array = np.clip(base + t * rate, self.lower, self.upper)
        unused = (weights == 0) & (answer < 1e-9) & (answer > self.lower)
        answer[unused] = self.lower[unused]
        return answer

    def symmetric_rows(self) -> tuple[Array, Array]:
        """(r, S) A' and (r,) limits: on the simplex ``|A' w| ≤ limits`` is ``low ≤ A w ≤ high``.

        ``low ≤ a·w ≤ high`` is the same as ``|(a − c)·w| ≤ (high − low)/2`` with c in the middle.
        """
        if not len(self.rows):
            return self.rows, self.low
        # Beyond what a row can reach on the simplex no side needs a limit.
        low = np.maximum(self.low, self.rows.min(axis=1))
        high = np.maximum(np.minimum(self.high, self.rows.max(axis=1)), low)
        return self.rows - ((low + high) / 2)[:, None], (high - low) / 2

    def prices(
        self, gradient: Array, weights: Array, lower: Array | None = None
    ) -> dict[str, float]:
        """What each bound costs at the minimum of an objective over the polytope: its multiplier.

        By so much per unit of weight the objective would fall if the bound were moved; 0 for one
        that does not bind.

        Args:
            gradient: (S,) of the objective at the minimum.
            weights: (S,) the minimum.
            lower: (S,) bounds of the problem's own, ≥ 0. None: 0.
        """
        bounds, values = self.bounds, self.bounds.rows @ weights
        own = np.zeros(len(weights)) if lower is None else lower
        # Where both bind, the stated bound is the one that costs.
        at_own = (weights <= own + BINDS) & ((own > self.lower) | (self.lower == 0))
        index, side = _binding(values, bounds)
        prices = dict.fromkeys(bounds.labels, 0.0)
        if not len(index):
            return prices
        sides = side[:, None] * bounds.rows[index]
        multipliers = _multipliers(gradient, sides, bounds.single[index], at_own)
        for number, multiplier in zip(index, multipliers, strict=True):
            prices[bounds.labels[number]] += float(multiplier)
        return prices


def _binding(values: Array, bounds: Bounds) -> tuple[np.ndarray, Array]:
    """Numbers of the bounds that bind at (n,) values, and on which side: 1 high, −1 low."""
    high = (np.abs(values - bounds.high) <= BINDS).nonzero()[0]
    low = (np.abs(values - bounds.low) <= BINDS).nonzero()[0]
    return np.concatenate([high, low]), np.repeat([1.0, -1.0], [len(high), len(low)])


def _multipliers(gradient: Array, sides: Array, single: np.ndarray, at_own: np.ndarray) -> Array:
    """(k,) y ≥ 0 that explains a gradient best: ``gradient + Aᵀy + μ`` is 0 where weights may move.

    Args:
        gradient: (S,) at a minimum.
        sides: (k, S) A, of the bounds that bind, pointing outwards.
        single: (k,) bool, which are on one domain's weight.
        at_own: (S,) bool, which weights are at 0, or at a lower bound of the problem's own.
    """
    one, held = np.ones(len(gradient)), sides[single]
    wide = np.array([*sides[~single], one, -one]).T
    free = ~at_own & ~held.any(axis=0)
    # Weights that may move tell what the wide bounds cost, from which the others' costs follow.
    y_wide = nnls(wide[free], -gradient[free])[0] if free.any() else np.zeros(wide.shape[1])
    reduced = gradient + wide @ y_wide
    low, high = at_own | (held < 0).any(axis=0), (held > 0).any(axis=0)
    wrong = np.where(reduced > 0, high & ~low, low & ~high) & (np.abs(reduced) > BINDS)
    if wrong.any():  # too few of them may move
        every = np.array([*sides, one, -one, *-np.eye(len(one))[at_own]]).T
        y: Array = nnls(every, -gradient)[0][: len(sides)]
        return y
    costs = np.maximum(-held @ reduced, 0)
    _, first = np.unique(held @ np.arange(1, len(one) + 1), return_index=True)
    y = np.zeros(len(sides))
    y[~single], y[single.nonzero()[0][first]] = y_wide[:-2], costs[first]
    return y


def _distance(answer: Array, weights: Array, distance: Distance) -> float:
    if distance == "euclidean":
        return float(np.square(answer - weights).sum()) / 2
    # Where w is 0, w log w is 0; −Σ w + 1 is 0 on the simplex.
    ratio = np.maximum(answer, 1e-300) / np.maximum(weights, LEAST)
    return float((answer * np.log(ratio)).sum())
