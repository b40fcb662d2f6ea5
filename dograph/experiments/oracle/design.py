"""Which fixed mixtures are tried: the even one, corners and samples; candidates for more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Mixtures = NDArray[np.float64]
"""(n, S) weights, each row on the simplex."""

CORNERS = (0.85, 0.6)
"""Weights of a corner's domain; the rest is even."""
MOST_CORNERS = 2 / 3
"""Share of the first mixtures, at most."""
TOWARDS_TARGET = (0.9, 0.5)
"""Weights of the target's own mixture, the rest even, where it is neither even nor a corner."""
SPREADS = (0.3, 1.0, 3.0)
"""Parameters of the Dirichlet distributions around the even mixture, from sparse to even."""
NARROW = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Concentrations of the Dirichlet distributions around a mixture that is good already."""
LEFT_OUT = 0.2
"""Chance by which a perturbed mixture leaves a domain out."""
CANDIDATES, SEARCHES = 500, 4
"""Samples of each distribution, and rounds of them, when a mixture is sought around the best."""
STRENGTHS = (0.1, 5.0, 15)
"""RegMix's concentrations around its prior: lowest, highest, and how many, evenly in the log."""
TEMPERATURE, USAGE, LEAST = 0.5, 15.0, 2e-4
"""Its prior is token shares to this power; most shares of them; the smallest weight but 0."""
MULTIPLE = 100
"""It draws so many for each mixture that it keeps."""
PLACES = 4
"""Decimals of a weight, so that a recipe with it is readable."""


def first_mixtures(count: int, target: NDArray[np.float64], seed: int = 0) -> Mixtures:
    """(count, S) mixtures for the first round, all distinct.

    The even one, two towards the target's own mixture, corners of one domain each (with the even
    one at most two thirds of all), and samples of Dirichlet distributions of several concentrations
    around the even one.

    Args:
        count: ≥ 1.
        target: (S,) how much each domain counts for the target, S ≥ 2; sum 1, or all 0.
        seed: of the samples, and of which corners are tried where there are too many.
    """
    draw, domains = np.random.default_rng(seed), len(target)
    even = np.full(domains, 1 / domains)
    mixtures = [even]
    if np.count_nonzero(target) > 1 and not np.allclose(target, even):
        mixtures += [share * target + (1 - share) * even for share in TOWARDS_TARGET]
    corners = [corner(s, domains, top) for top in CORNERS for s in draw.permutation(domains)]
    mixtures += corners[: max(int(MOST_CORNERS * count) - 1, 0)]
    distinct = {tuple(row): None for row in rounded(np.array(mixtures)).tolist()}
    while len(distinct) < count:
        spread = SPREADS[len(distinct) % len(SPREADS)]
        sample = rounded(draw.dirichlet(np.full(domains, spread), 1))
        distinct.setdefault(tuple(sample[0].tolist()))
    return np.array(list(distinct)[:count])


def regmix_mixtures(count: int, shares: NDArray[np.float64], seed: int = 0) -> Mixtures:
    """(n, S) mixtures by RegMix's rule (Liu et al. 2024), n ≤ ``count``, all distinct.

    A hundred times as many draws of Dirichlet distributions around ``shares^0.5``, of a random one
    of 15 concentrations; those with more than 15 times a domain's share are rejected; weights
    below 0.0002 are 0, the others multiples of it; of the distinct ones, ``count`` by chance. Ours:
    the largest weight takes what rounding leaves, so that each sum is 1.

    Args:
        count: ≥ 1.
        shares: (S,) of the tokens, all above 0, sum 1.
        seed: of the draws and the choice.
    """
    draw = np.random.default_rng(seed)
    prior = shares**TEMPERATURE / (shares**TEMPERATURE).sum()
    lowest, highest, strengths = STRENGTHS
    strength = np.geomspace(lowest, highest, strengths)[
        draw.integers(strengths, size=MULTIPLE * count)
    ]
    sample = dirichlet(strength[:, None] * prior, draw)
    sample = sample[(sample <= np.minimum(USAGE * shares, 1)).all(axis=1)]
    sample = np.where(sample < LEAST, 0, sample)
    sample = np.round(sample / sample.sum(axis=1, keepdims=True) / LEAST) * LEAST
    distinct = np.unique(rounded(sample), axis=0)
    chosen = draw.permutation(len(distinct))[:count]
    return np.asarray(distinct[chosen])


def dirichlet(parameters: NDArray[np.float64], draw: np.random.Generator) -> Mixtures:
    """(n, S) samples, one for each row of (n, S) parameters, however small these are.

    By ``log G(a) = log G(a + 1) + log(U) / a``: gamma variates themselves would all become 0.
    """
    gamma = draw.standard_gamma(parameters + 1)
    logs = np.log(gamma) + np.log(1 - draw.random(parameters.shape)) / parameters
    samples = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(samples / samples.sum(axis=1, keepdims=True))


def corner(domain: int, domains: int, top: float) -> NDArray[np.float64]:
    """(S,) weights: ``top`` for one domain, the rest even over the others."""
    weights = np.full(domains, (1 - top) / (domains - 1))
    weights[domain] = top
    return weights


def candidates(good: Mixtures, count: int, draw: np.random.Generator) -> Mixtures:
    """(n, S) mixtures among which the next one is sought, some ``count`` of each kind.

    Args:
        good: (k, S) mixtures that are perturbed: by Dirichlet samples around them, by moving up to
            half of the weight to one domain, and by leaving out a fifth of the domains.
        count: samples of each distribution, ≥ 1.
        draw: source of random numbers.
    """
    domains = good.shape[1]
    parts = [draw.dirichlet(np.full(domains, spread), count) for spread in SPREADS]
    for mixture in good:
        parts += [draw.dirichlet(mixture * narrow + 0.01, count) for narrow in NARROW]
        moved = draw.uniform(0, 0.5, (count, 1))
        towards = np.eye(domains)[draw.integers(0, domains, count)]
        parts.append((1 - moved) * mixture + moved * towards)
        fewer = mixture * (draw.random((count, domains)) > LEFT_OUT) + 1e-12
        parts.append(fewer / fewer.sum(axis=1, keepdims=True))
    return np.concatenate([good, *parts])


def search_around(
    best: NDArray[np.float64],
    expected: Callable[[Mixtures], NDArray[np.float64]],
    seed: int,
    within: Callable[[Mixtures], Mixtures] = lambda mixtures: mixtures,
) -> NDArray[np.float64]:
    """(S,) the mixture of the lowest expected loss, by repeated search around the best one.

    Args:
        best: (S,) a good mixture.
        expected: (n, S) mixtures → (n,) losses.
        seed: of the candidates.
        within: moves candidates to the nearest mixtures that are allowed.
    """
    draw = np.random.default_rng(seed)
    for _ in range(SEARCHES):
        sought = within(candidates(best[None], CANDIDATES, draw))
        best = sought[expected(sought).argmin()]
    return best


def rounded(mixtures: Mixtures) -> Mixtures:
    """The mixtures with four decimals; the largest weight takes the rest of each sum."""
    short = np.round(mixtures, PLACES)
    rows = np.arange(len(short))
    short[rows, short.argmax(axis=1)] += 1 - short.sum(axis=1)
    return np.round(short, PLACES)
