"""The two graph mixers against transcriptions of their problems, which are solved by trying all.

The minimum of a convex problem on a few nodes lies where some of them are at their least weight:
each such choice has a linear system, and the feasible one of the least objective is it.
"""

from itertools import chain, combinations

import numpy as np
import pytest
import torch

from dograph.graph.clusters import cluster_sequences
from dograph.mixers import BatchSignals, DoGraph, DoGraphSchedule
from dograph.mixers.schedule_settings import ProblemSettings


def minimum(quadratic, linear, least):
    """(m,) w of the least ``wᵀHw + c·w`` with w ≥ least and sum 1."""
    count, best = len(linear), (np.inf, None)
    nodes = range(count)
    for held in chain.from_iterable(combinations(nodes, size) for size in range(count)):
        free = [node for node in nodes if node not in held]
        weights = np.array(least, dtype=float)
        rest = 1 - weights[list(held)].sum()
        pull = 2 * quadratic[np.ix_(free, held)] @ weights[list(held)] + linear[free]
        ones = np.ones((len(free), 1))
        system = np.block([[2 * quadratic[np.ix_(free, free)], ones], [ones.T, 0]])
        weights[free] = np.linalg.solve(system, np.append(-pull, rest))[:-1]
        if (weights >= least - 1e-12).all():
            value = weights @ quadratic @ weights + linear @ weights
            best = min(best, (value, weights.tolist()))
    return np.array(best[1])


def clustered(rows, labels):
    """K, the clusters' spreads and sizes of (n, k) sketches."""
    groups = [rows[labels == label] for label in range(labels.max() + 1)]
    means = np.stack([group.mean(axis=0) for group in groups])
    pairs = zip(groups, means, strict=True)
    own = [((group - mean) ** 2).sum(axis=1).mean() for group, mean in pairs]
    sizes = np.array([len(group) for group in groups])
    pooled = (sizes * own).sum() / len(rows)
    return means @ means.T, (sizes * own + 1.5 * pooled) / (sizes + 1.5), sizes


def cluster_weights(objective, beta, tau, anchor, kernel, spread, sizes):
    count = len(sizes)
    scale, share = np.trace(kernel) / count, sizes / sizes.sum()
    if objective == "robust":
        weights = np.exp((kernel.diagonal() - kernel.diagonal().max()) / (tau * scale))
        return weights / weights.sum()
    if objective == "alignment":
        weights = np.full(count, 1 / count)
        for _ in range(5):
            cosine = np.maximum(kernel @ weights / np.sqrt(kernel.diagonal()), 0)
            weights = cosine / cosine.sum() if cosine.sum() else np.full(count, 1 / count)
        return weights
    beta = beta if objective == "uncertainty" else 0.0
    ridge = 1e-6 * np.eye(count)  # ours, of `GraphSolver`: without it, weights differ by 1e-6
    quadratic = kernel / scale + ridge + anchor * np.diag(1 / share)
    return minimum(quadratic, beta * spread / scale - 2 * anchor, np.zeros(count))


@pytest.mark.parametrize("objective", ["uncertainty", "alignment", "variance", "robust"])
def test_dograph(objective):
    draw = np.random.default_rng(0)
    for case in range(200):
        clusters, width = int(draw.integers(1, 6)), int(draw.integers(6, 20))
        # Not isotropic, so that some clusters get no weight.
        rows = draw.normal(size=(12, width)) * draw.uniform(0.1, 2, (12, 1))
        rows += draw.normal(size=width)
        beta, tau = float(draw.uniform(0, 1)), float(draw.uniform(0.2, 2))
        solved = objective in ("uncertainty", "variance")
        anchor = float(draw.choice([0.0, 0.5])) if solved else 0.0
        mixer = DoGraph(clusters, objective, beta, tau, anchor)
        mixer.setup(("a", "b"), (9, 9), 12)
        sketch = torch.from_numpy(rows)
        labels = cluster_sequences(sketch, clusters, seed=case).numpy()
        kernel, spread, sizes = clustered(rows, labels)
        expected = cluster_weights(objective, beta, tau, anchor, kernel, spread, sizes)
        batch = BatchSignals(case, torch.zeros(12, dtype=torch.int64), torch.ones(12), sketch)
        weights = mixer.checked_loss_weights(batch).tolist()
        assert weights == pytest.approx((expected / sizes)[labels].tolist(), abs=1e-6)


def schedule_weights(kernel, error, prior, tau, repeats, kappa, nu):
    """The weights by the problem in docs/method.md, with the other settings as they are shipped."""
    size = prior @ kernel @ prior
    kernel, error = kernel / size, error / size
    pull = kernel @ tau
    scale = max(pull @ prior, 0.1 * np.sqrt(tau @ kernel @ tau))
    worth = np.where(pull > 0, np.exp(-repeats / 15.4), 1)
    noise = np.sqrt(error**2 @ tau**2) / scale
    influence = worth * pull / scale - kappa * kernel @ prior
    spread = prior @ (influence - prior @ influence) ** 2
    influence = max(0, 1 - (0.08**2 + prior @ noise**2) / spread) * influence
    quadratic = kappa / 2 * kernel + nu / 2 * np.diag(1 / prior)
    linear = -influence - kappa * kernel @ prior - nu
    return minimum(quadratic, linear, np.maximum(0.1 * prior, 0.5 * np.minimum(tau, prior)))


TOKENS = 20
"""Of each domain: eight sequences of 30 repeat some."""


def schedule(domains, shares, problem, wanted):
    prior = dict(zip(domains, shares.tolist(), strict=True))
    mixer = DoGraphSchedule(
        interval=1, pair_rows=64, problem=ProblemSettings(**problem), prior=prior
    )
    text = [torch.randint(0, 8, (4, 9)) for _ in domains]
    target = dict(zip(domains, wanted.tolist(), strict=True))
    mixer.setup(domains, [TOKENS] * len(domains), 8, 8, target, text=text)
    return mixer


def test_the_schedule():
    draw = np.random.default_rng(1)
    moved = 0
    for _ in range(200):
        count = int(draw.integers(2, 6))
        domains = [f"domain_{index}" for index in range(count)]
        shares, wanted = draw.uniform(0.1, 1, count), draw.uniform(0, 1, count)
        wanted[draw.integers(count)] += 3
        kappa, nu = float(draw.uniform(0, 1)), float(draw.uniform(0.05, 1))
        settings = {"kappa": kappa, "prior_pull": nu}
        mixer = schedule(domains, shares, settings, wanted)
        features = draw.normal(size=(count, 8)) + 0.5
        kernel = features @ features.T
        error = 0.01 * draw.uniform(size=(count, count))
        mixer.kernel = torch.from_numpy(kernel), torch.from_numpy(error)
        domain = draw.integers(0, count, 8)
        batch = BatchSignals(0, torch.from_numpy(domain), torch.ones(8), sequence_tokens=30)
        mixer.step(batch)
        repeats = np.maximum(30 * np.bincount(domain, minlength=count) / TOKENS - 1, 0)
        prior, tau = shares / shares.sum(), wanted / wanted.sum()
        expected = schedule_weights(kernel, error, prior, tau, repeats, kappa, nu)
        assert mixer.weights.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
        moved += not np.allclose(expected, prior, atol=1e-3)
    assert moved > 100
