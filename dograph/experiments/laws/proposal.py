"""Which mixture a law proposes: limits, RegMix's simulation, exact convex minimisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from dograph.errors import UserError, nearest
from dograph.experiments.laws.table import Floats

DRAWS, BEST = 100_000, 128
"""RegMix's simulation: mixtures drawn around the prior, and how many of the best are averaged."""
CHUNK = 10_000
"""Mixtures predicted at once, and drawn where only the worst one is wanted."""
LEAST = 1e-9
"""Smallest weight in a minimisation, so that logarithms are finite."""


class Optimum(NamedTuple):
    """A mixture, and by how many nats at most its expected loss misses the least; None: unknown."""

    weights: Floats
    gap: float | None


def limits(
    domains: Sequence[str],
    at_most: Mapping[str, float],
    tokens: float | None,
    epochs: float,
    sizes: Mapping[str, float],
) -> Floats:
    """(S,) the largest weight of each domain.

    Args:
        domains: the S names.
        at_most: shares by name.
        tokens: of the run that is planned; with it no domain is repeated more than ``epochs``.
        epochs: passes through a domain.
        sizes: tokens by domain.

    Raises:
        UserError: for an unknown name or size, or limits that no mixture keeps.
    """
    most = np.ones(len(domains))
    if tokens is not None:
        if unknown := [name for name in domains if name not in sizes]:
            raise UserError(
                f"--tokens needs the tokens of {', '.join(unknown)}: give --sizes NAME=TOKENS,…"
            )
        most = np.minimum(most, [epochs * sizes[name] / tokens for name in domains])
    for name, share in at_most.items():
        if name not in domains:
            hint = nearest(name, domains) or f"; there are {', '.join(domains)}"
            raise UserError(f"--at-most names {name!r}, which no mixture draws{hint}")
        if not 0 <= share <= 1:
            raise UserError(f"--at-most {name}={share}: give a share from 0 to 1")
        most[domains.index(name)] = min(most[domains.index(name)], share)
    if most.sum() < 1 - 1e-9:
        raise UserError(
            f"the limits add up to {most.sum():.3f}: no mixture keeps them: raise --at-most or "
            "--epochs, or lower --tokens"
        )
    return most


def project(mixtures: Floats, most: Floats) -> Floats:
    """(n, S) the nearest mixtures within the limits; those within are unchanged.

    The Euclidean projection is ``min(max(w − τ, 0), most)``, of which bisection gives τ.
    """
    off = (mixtures > most).any(axis=1)
    if not off.any():
        return mixtures
    rows = mixtures[off]
    low, high = np.full(len(rows), -1.0), np.full(len(rows), 1.0)
    for _ in range(60):
        middle = (low + high) / 2
        sums = np.clip(rows - middle[:, None], 0, most).sum(axis=1)
        low, high = np.where(sums > 1, middle, low), np.where(sums > 1, high, middle)
    projected = mixtures.copy()
    projected[off] = np.clip(rows - high[:, None], 0, most)
    return projected


def draws(prior: Floats, most: Floats, seed: int, count: int = DRAWS) -> Floats:
    """(count, S) draws of a Dirichlet distribution of the prior, moved within the limits."""
    sample = np.random.default_rng(seed).dirichlet(np.maximum(prior, LEAST), count)
    return project(sample, most)


def simulate(expected: Callable[[Floats], Floats], sample: Floats) -> tuple[Floats, Floats]:
    """RegMix's search: the mean of the lowest of many draws, and the highest one.

    Args:
        expected: (n, S) mixtures → (n,) losses.
        sample: (n, S) draws.

    Returns:
        (S,) the proposal and (S,) the worst draw, for checking.
    """
    chunks = [sample[start : start + CHUNK] for start in range(0, len(sample), CHUNK)]
    losses = np.concatenate([expected(chunk) for chunk in chunks])
    best = sample[np.argsort(losses, kind="stable")[:BEST]].mean(axis=0)
    return np.asarray(best), np.asarray(sample[losses.argmax()])


def minimise(
    expected: Callable[[Floats], Floats],
    gradient: Callable[[Floats], Floats],
    prior: Floats,
    most: Floats,
    pull: float = 0.0,
) -> Optimum:
    """The exact optimum of a convex loss within limits, and a bound on what is missing.

    Args:
        expected: (n, S) mixtures → (n,) losses in nats.
        gradient: (S,) mixture → (S,) derivatives.
        prior: (S,) mixture; the search begins there.
        most: (S,) the largest weights.
        pull: weight of the divergence ``Σ w log(w / prior)``, which olmix adds.
    """
    inner = np.maximum(prior, LEAST)

    def value(w: Floats) -> float:
        w = np.maximum(w, LEAST)
        return float(expected(w[None])[0]) + pull * float((w * np.log(w / inner)).sum())

    def derivative(w: Floats) -> Floats:
        w = np.maximum(w, LEAST)
        return np.asarray(gradient(w) + pull * (np.log(w / inner) + 1))

    whole = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    start = project(inner[None] / inner.sum(), most)[0]
    for _ in range(3):  # begun again where the quadratic model stalled
        bounds = [(0, high) for high in most]
        options = {"maxiter": 500, "ftol": 1e-12}
        solved = minimize(
            value, start, jac=derivative, bounds=bounds, constraints=[whole], options=options
        )
        start = project(np.clip(solved.x, 0, None)[None] / solved.x.clip(0).sum(), most)[0]
        if (gap := duality_gap(start, derivative(start), most)) < 1e-6:
            break
    return Optimum(start, gap)


def duality_gap(weights: Floats, derivative: Floats, most: Floats) -> float:
    """How far a convex loss may be above its least (Frank and Wolfe 1956)."""
    left, lowest = 1.0, 0.0
    for domain in np.argsort(derivative):
        taken = min(left, most[domain])
        lowest, left = lowest + taken * derivative[domain], left - taken
    return max(float(derivative @ weights - lowest), 0.0)
