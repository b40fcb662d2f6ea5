"""MixMin: mixture weights by the likelihoods of one-domain models (Thudi et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from dograph.errors import UserError
from dograph.experiments.laws.law import FittedLaw, Law
from dograph.experiments.laws.proposal import LEAST
from dograph.experiments.laws.table import Floats, MixtureTable, Points

RATE, STEPS, STILL = 1.0, 100, 1e-4
"""The public code's step size, most steps, and the largest derivative at which it stops."""
AT_ONCE = 10_000_000
"""Numbers of an array that one prediction makes."""
LARGEST = 700.0
"""Exponents beyond it overflow."""
REMEDY = "train one with `dograph swarm RECIPE --mixtures 0 --corners 1`, and name its folder"


class FittedMixMin(FittedLaw):
    """The loss of an ensemble of the domains' own models, ``−mean_x log Σ_s p_s P_s(x) / T``.

    ``P_s`` is the likelihood that the model of domain s gives to a whole sequence x. Convex in p.

    Args:
        nats: (S, n) ``−log P_s(x)``.
        tokens: T that each sequence predicts.
    """

    def __init__(self, nats: Floats, tokens: int) -> None:
        self.nats, self.tokens = nats, tokens

    def predict(self, points: Points) -> Floats:
        """(m,) nats a token."""
        mixtures, losses = points.mixtures, np.empty(len(points.mixtures))
        chunk = max(AT_ONCE // self.nats.size, 1)
        for start in range(0, len(mixtures), chunk):
            rows = slice(start, start + chunk)
            losses[rows] = self._joint(mixtures[rows]).mean(axis=1) / self.tokens
        return losses

    def gradient(self, mixture: Floats, step: float) -> Floats:
        """(S,) ``−mean_x (P_s(x) / Σ_r p_r P_r(x)) / T``."""
        ahead = self._joint(mixture[None])[0] - self.nats
        return np.asarray(-np.exp(np.minimum(ahead, LARGEST)).mean(axis=1) / self.tokens)

    def _joint(self, mixtures: Floats) -> Floats:
        """(m, n) ``−log Σ_s p_s P_s(x)``."""
        weights = np.maximum(mixtures, LEAST)[:, :, None]
        return np.asarray(-logsumexp(np.log(weights) - self.nats, axis=1))

    def as_json(self) -> dict[str, Any]:
        """Sequences, their tokens, and each model's own loss on them in nats a token."""
        losses = (self.nats.mean(axis=1) / self.tokens).tolist()
        return {"sequences": self.nats.shape[1], "tokens": self.tokens, "losses": losses}


class MixMin(Law):
    """Fitted to nothing: what each domain's own model says of the target decides (2502.10510)."""

    name, convex = "mixmin", True
    note = (
        "the target's sequences are windows of the context, of validation text; the published "
        "descent of 100 steps, which ends before the optimum where sequences are long"
    )

    def parameters(self, domains: int, several_steps: bool) -> int:
        """None; but it needs one mixture for each domain."""
        return domains - 1

    def fit_loss(
        self,
        table: MixtureTable,
        loss: int,
        rows: Any = slice(None),
        whole: FittedLaw | None = None,
    ) -> FittedLaw:
        """The loss by its sequences; UserError for a table without any."""
        if table.sequences is None:
            raise UserError(
                "law mixmin reads how one model of each domain alone predicts whole sequences, "
                f"which only runs tell: {REMEDY}"
            )
        return FittedMixMin(table.sequences.nats[table.names[loss]], table.sequences.tokens)


def descend(
    gradient: Callable[[Floats], Floats],
    domains: int,
    rate: float = RATE,
    steps: int = STEPS,
    still: float = STILL,
) -> Floats:
    """(S,) weights by entropic descent from even ones, ``p ← p exp(−η ∇) / Z``.

    Args:
        gradient: (S,) mixture → (S,) derivatives.
        domains: their number S.
        rate: η > 0.
        steps: at most so many, ≥ 0.
        still: ends after a step with no derivative this large, as the public code does.
    """
    weights = np.full(domains, 1 / domains)
    for _ in range(steps):
        derivative = gradient(weights)
        weights = np.maximum(softmax(np.log(weights) - rate * derivative), LEAST)
        weights /= weights.sum()
        if np.abs(derivative).max() < still:
            break
    return weights
