"""The mixtures that limits allow: a polytope, the nearest one in it, and what each limit costs."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import linprog, minimize, nnls

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
class Bound:
    """``low ≤ a · w ≤ high``, as somebody stated it.

    Attributes:
        label: what messages and charts call it.
        row: (S,) a.
        low: −inf for none.
        high: inf for none.
    """

    label: str
    row: Array
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Polytope:
    """Mixtures w on the simplex with ``lower ≤ w ≤ upper``, ``low ≤ A w ≤ high``.

    Attributes:
        lower: (S,) ≥ 0.
        upper: (S,) ≤ 1; 0 for a domain that is not drawn.
        rows: (r, S) A, of the bounds on more than one domain.
        low: (r,).
        high: (r,).
        bounds: those that it was made of.
    """

    lower: Array
    upper: Array
    rows: Array
    low: Array
    high: Array
    bounds: tuple[Bound, ...]

    @classmethod
    def of(cls, bounds: Sequence[Bound], drawn: Array) -> Polytope:
        """The polytope of some bounds; ``drawn`` (S,) is False for domains that stay at 0."""
        lower, upper = np.zeros(len(drawn)), drawn.astype(float)
        wide = [bound for bound in bounds if not _is_single(bound)]
        for bound in bounds:
            if _is_single(bound):
                index = int(bound.row.argmax())
                lower[index] = max(lower[index], bound.low)
                upper[index] = min(upper[index], bound.high)
        return cls(
            lower,
            upper,
            np.array([bound.row for bound in wide]).reshape(len(wide), len(drawn)),
            np.array([bound.low for bound in wide]),
            np.array([bound.high for bound in wide]),
            tuple(bounds),
        )

    def among(self, kept: np.ndarray) -> Polytope:
        """The same over the domains that are ``kept`` (S,); the others' weights are 0."""
        bounds = [replace(bound, row=bound.row[kept]) for bound in self.bounds]
        return Polytope.of(bounds, self.upper[kept] > 0)

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
        """(r, S) A' and (r,) limits with ``|A' w| ≤ limits`` for all limits but ``w ≥ lower``.

        On the simplex ``low ≤ a·w ≤ high`` is the same as ``|(a − c)·w| ≤ (high − low)/2`` with c
        in the middle of both.
        """
        singles = np.flatnonzero(self.upper < 1)
        rows = np.concatenate([np.eye(len(self.upper))[singles], self.rows])
        # Beyond what a row can reach on the simplex no side needs a limit.
        low = np.concatenate([np.zeros(len(singles)), self.low])
        low, high = (
            np.maximum(low, rows.min(axis=1)),
            np.concatenate([self.upper[singles], self.high]),
        )
        high = np.maximum(np.minimum(high, rows.max(axis=1)), low)
        return rows - ((low + high) / 2)[:, None], (high - low) / 2

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
        columns, names = [], list[str]()
        for bound in self.bounds:
            value = float(bound.row @ weights)
            for side, limit in ((1.0, bound.high), (-1.0, bound.low)):
                if abs(value - limit) <= BINDS:
                    columns.append(side * bound.row)
                    names.append(bound.label)
        prices = dict.fromkeys((bound.label for bound in self.bounds), 0.0)
        if columns:
            one = np.ones(len(weights))
            own = np.zeros(len(weights)) if lower is None else lower
            # Where both bind, the stated bound is the one that costs.
            at_own = (weights <= own + BINDS) & ((own > self.lower) | (self.lower == 0))
            free = np.array([*columns, one, -one, *-np.eye(len(weights))[at_own]]).T
            multipliers, _ = nnls(free, -gradient)
            for name, multiplier in zip(names, multipliers, strict=False):
                prices[name] += float(multiplier)
        return prices


def conflict(bounds: Sequence[Bound], drawn: Array) -> list[Bound]:
    """A smallest set of bounds that no mixture keeps together: without any of them, one would.

    Args:
        bounds: all of them.
        drawn: (S,) False for domains that stay at 0.

    Returns:
        The set; empty where some mixture keeps all bounds.
    """
    if _possible(bounds, drawn):
        return []
    kept = list(bounds)
    for bound in bounds:
        fewer = [each for each in kept if each is not bound]
        if not _possible(fewer, drawn):
            kept = fewer
    return kept


def _possible(bounds: Sequence[Bound], drawn: Array) -> bool:
    """Whether some mixture keeps all bounds."""
    sides = [
        (side * bound.row, side * limit)
        for bound in bounds
        for side, limit in ((1.0, bound.high), (-1.0, bound.low))
        if np.isfinite(limit)
    ]
    solved = linprog(
        np.zeros(len(drawn)),
        A_ub=np.array([row for row, _ in sides]) if sides else None,
        b_ub=np.array([limit for _, limit in sides]) if sides else None,
        A_eq=np.ones((1, len(drawn))),
        b_eq=[1.0],
        bounds=[(0, float(each)) for each in drawn],
        method="highs",
    )
    return bool(solved.status == 0)


def _is_single(bound: Bound) -> bool:
    """Whether a bound is on one domain's weight."""
    return np.count_nonzero(bound.row) == 1 and bound.row.max() == 1


def _distance(answer: Array, weights: Array, distance: Distance) -> float:
    if distance == "euclidean":
        return float(np.square(answer - weights).sum()) / 2
    # Where w is 0, w log w is 0; −Σ w + 1 is 0 on the simplex.
    ratio = np.maximum(answer, 1e-300) / np.maximum(weights, LEAST)
    return float((answer * np.log(ratio)).sum())
