"""Linear bounds on a mixture, and which of them conflict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import linprog

from dograph.graph.problem import Array


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
class Bounds:
    """n bounds ``low ≤ A w ≤ high``, stacked.

    Attributes:
        labels: what messages and charts call each.
        rows: (n, S) A.
        low: (n,).
        high: (n,).
    """

    labels: tuple[str, ...]
    rows: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, bounds: Sequence[Bound], count: int) -> Bounds:
        """Those of some bounds on ``count`` domains."""
        return cls(
            tuple(bound.label for bound in bounds),
            np.array([bound.row for bound in bounds]).reshape(len(bounds), count),
            np.array([bound.low for bound in bounds]),
            np.array([bound.high for bound in bounds]),
        )

    def only(self, kept: np.ndarray, high: Array) -> Bounds:
        """Those that are ``kept`` (n,), with other (n,) upper ends."""
        labels = tuple(label for label, keep in zip(self.labels, kept, strict=True) if keep)
        return Bounds(labels, self.rows[kept], self.low[kept], high[kept])

    def among(self, kept: np.ndarray) -> Bounds:
        """The same over the domains that are ``kept`` (S,); the others' weights are 0."""
        return replace(self, rows=self.rows[:, kept])

    @cached_property
    def single(self) -> np.ndarray:
        """(n,) bool, which are on one domain's weight."""
        ones: np.ndarray = (self.rows == 1).any(axis=1)
        return ones & (np.count_nonzero(self.rows, axis=1) == 1)

    @cached_property
    def domain(self) -> np.ndarray:
        """(n,) the number of that domain."""
        return self.rows.argmax(axis=1)


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
