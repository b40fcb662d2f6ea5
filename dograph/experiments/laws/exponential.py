"""Laws with closed forms: exponential, log-linear, BiMix. All are convex in the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from dograph.errors import UserError
from dograph.experiments.laws.law import FittedLaw, Law
from dograph.experiments.laws.table import Floats, Points

FLOORS = (0.02, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97)
"""Starts of the fit: the law's constant as shares of the lowest loss."""
FEW, MANY = 15, 300
"""Evaluations from every start, then from the best one."""
MOST_EXPONENT = 50.0
"""Exponents are cut here, so that a far start does not overflow."""
LEAST_SHARE = 1e-6
"""The share that stands for none in BiMix, whose loss is infinite without the domain."""


@dataclass(frozen=True)
class FittedExponential(FittedLaw):
    """``c + exp(Σ_j t_j r_j)``."""

    log_c: float
    t: Floats

    def predict(self, points: Points) -> Floats:
        """(n,) expected losses."""
        return np.exp(self.log_c) + _exponential(points.mixtures @ self.t)

    def gradient(self, mixture: Floats, step: float) -> Floats:
        """(S,) derivative by each weight."""
        return np.asarray(_exponential(mixture @ self.t) * self.t)

    def as_json(self) -> dict[str, Any]:
        """``c``, ``k`` and ``t``, told apart by ``Σ t = 0``."""
        mean = float(self.t.mean())
        t = (self.t - mean).tolist()
        return {"c": float(np.exp(self.log_c)), "k": float(np.exp(mean)), "t": t}


class Exponential(Law):
    """``L(r) = c + k exp(Σ_j t_j r_j)`` (Ye et al. 2024; olmix's log-linear law without ``k``).

    On the simplex both are one law: ``Σ r = 1`` makes ``log k`` a constant added to every ``t``.
    They differ in how much a far loss counts (Huber) and in the search. The fit minimises the
    published objective, by Gauss–Newton steps from 7 values of ``c``, where the original code runs
    L-BFGS from 6,000 and 300 random starts.

    Args:
        name: exponential or log-linear.
        delta: where the Huber loss turns linear, in nats.
        pull: weight of the divergence from the prior.
    """

    convex = True

    def __init__(self, name: str, delta: float, pull: float = 0.0) -> None:
        self.name, self.delta, self.pull = name, delta, pull

    def parameters(self, domains: int, several_steps: bool) -> int:
        """The constant and a coefficient for each domain."""
        return domains + 1

    def fit(
        self, points: Points, losses: Floats, own: int | None, whole: FittedLaw | None = None
    ) -> FittedExponential:
        """Fit from several constants, or from the fit to all rows."""
        x = points.mixtures

        def residuals(p: Floats) -> Floats:
            return np.asarray(np.exp(p[0]) + _exponential(x @ p[1:]) - losses)

        def jacobian(p: Floats) -> Floats:
            rise = _exponential(x @ p[1:])[:, None] * x
            return np.hstack([np.full((len(x), 1), np.exp(p[0])), rise])

        starts = [_start(x, losses, share) for share in FLOORS]
        if isinstance(whole, FittedExponential):
            starts = [np.array([whole.log_c, *whole.t])]
        p = _best(residuals, starts, jacobian, self.delta)
        return FittedExponential(float(p[0]), p[1:])


@dataclass(frozen=True)
class FittedBiMix(FittedLaw):
    """``(b / s^β + c) / r^α`` of the loss's own domain, ``s`` in units of the most steps."""

    own: int
    domains: int
    last_step: float
    b: float
    beta: float
    c: float
    alpha: float

    def predict(self, points: Points) -> Floats:
        """(n,) expected losses."""
        share = np.maximum(points.mixtures[:, self.own], LEAST_SHARE)
        steps = points.steps / self.last_step
        return np.asarray((self.b * steps**-self.beta + self.c) * share**-self.alpha)

    def gradient(self, mixture: Floats, step: float) -> Floats:
        """(S,) derivative by each weight; 0 but for the own domain."""
        gradient, share = np.zeros(self.domains), max(float(mixture[self.own]), LEAST_SHARE)
        loss = self.predict(Points.at(mixture[None], step))[0]
        gradient[self.own] = -self.alpha * loss / share
        return gradient

    def as_json(self) -> dict[str, Any]:
        """The exponents and constants; A is 1, since it only scales B and C."""
        names = ("alpha", "beta", "b", "c", "last_step")
        return {name: getattr(self, name) for name in names}


class BiMix(Law):
    """``L_i(r, s) = A_i / r_i^α_i · (B_i / s^β_i + C_i)`` (Ge et al. 2024, arXiv 2405.14908).

    A domain's loss depends on its own share and the steps alone. ``A`` only scales ``B`` and
    ``C``, so it is 1. With ends of training alone the bracket is one constant. Least squares.
    """

    name, convex, knows_steps = "bimix", True, True

    def parameters(self, domains: int, several_steps: bool) -> int:
        """Four, or two for one number of steps."""
        return 4 if several_steps else 2

    def check_own(self, own: int | None) -> int:
        """The place of a loss's domain; UserError for a loss that is of no drawn domain."""
        if own is None:
            raise UserError(
                "law bimix predicts a domain's loss from its own share: it has none for a loss "
                "that is not of a drawn domain: use --law exponential"
            )
        return own

    def fit(
        self, points: Points, losses: Floats, own: int | None, whole: FittedLaw | None = None
    ) -> FittedBiMix:
        """Fit to the rows that draw the domain; UserError for the loss of no drawn domain."""
        own = self.check_own(own)
        drawn = points.mixtures[:, own] > 0
        share, y = points.mixtures[drawn, own], losses[drawn]
        last = float(points.steps.max())
        steps = points.steps[drawn] / last
        several = bool((steps != 1).any())

        def residuals(p: Floats) -> Floats:
            level = np.exp(p[1]) + (np.exp(p[2]) * steps ** -np.exp(p[3]) if several else 0.0)
            return np.asarray(level * share ** -np.exp(p[0]) - y)

        end = np.log(y.min())
        levels = (
            [[end], [end - 0.2]]
            if not several
            else [
                [end + low, end - drop, np.log(power)]
                for low, drop in ((-0.2, 1.5), (-0.7, 0.5))
                for power in (0.2, 0.7)
            ]
        )
        starts = [np.array([np.log(a), *level]) for level in levels for a in (0.02, 0.1)]
        p = _best(residuals, starts, "2-point", None)
        b, beta = (float(np.exp(p[2])), float(np.exp(p[3]))) if several else (0.0, 0.0)
        c, alpha = float(np.exp(p[1])), float(np.exp(p[0]))
        return FittedBiMix(own, points.mixtures.shape[1], last, b, beta, c, alpha)


def _exponential(values: Any) -> Any:
    return np.exp(np.minimum(values, MOST_EXPONENT))


def _start(x: Floats, losses: Floats, share: float) -> Floats:
    """Parameters for one constant: the others by linear regression of the log of the rest."""
    c = share * float(losses.min())
    t = np.linalg.lstsq(x, np.log(losses - c), rcond=None)[0]
    return np.array([np.log(c), *t])


def _best(
    residuals: Callable[[Floats], Floats],
    starts: list[Floats],
    jacobian: Any,
    delta: float | None,
) -> Floats:
    """The parameters of the lowest cost: a little from every start, then on from the best."""
    loss = "linear" if delta is None else "huber"

    def solve(start: Floats, evaluations: int) -> Any:
        return least_squares(
            residuals, start, jacobian, loss=loss, f_scale=delta or 1.0, max_nfev=evaluations
        )

    first = [solve(start, FEW) for start in starts]
    best = min(first, key=lambda each: each.cost)
    return np.asarray(solve(best.x, MANY).x)
