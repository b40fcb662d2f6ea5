"""RegMix's rule for the mixtures of a swarm."""

import numpy as np
import pytest

from dograph.experiments.oracle.design import LEAST, dirichlet, regmix_mixtures

SHARES = np.array([0.5, 0.3, 0.15, 0.04, 0.01])


def test_mixtures_by_regmix_s_rule_are_short_distinct_and_within_the_usage():
    mixtures = regmix_mixtures(200, SHARES)
    assert mixtures.shape == (200, 5)
    assert len({tuple(row) for row in mixtures.tolist()}) == 200
    assert mixtures.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert mixtures.min() == 0  # what is below the least weight
    assert mixtures[mixtures > 0].min() >= LEAST / 2 - 1e-12  # one weight took the rest
    # 15 times the share of tokens, without the temperature; rounding may add one step.
    assert (mixtures <= np.minimum(15 * SHARES, 1) + 2 * LEAST).all()
    assert mixtures[:, 4].max() > 0.1
    assert (regmix_mixtures(200, SHARES) == mixtures).all()
    assert not np.array_equal(regmix_mixtures(200, SHARES, seed=1), mixtures)


def test_their_mean_leans_to_the_prior_of_temperature_one_half():
    even = np.full(4, 0.25)
    assert regmix_mixtures(2000, even).mean(axis=0) == pytest.approx(even, abs=0.03)
    large = np.array([0.4, 0.35, 0.25])  # no draw is rejected
    prior = large**0.5 / (large**0.5).sum()
    assert regmix_mixtures(2000, large).mean(axis=0) == pytest.approx(prior, abs=0.03)


def test_domains_of_very_unequal_size_leave_fewer_mixtures():
    shares = np.array([1 - 1e-6, 1e-6])
    assert len(regmix_mixtures(50, shares)) < 50


def test_dirichlet_samples_are_exact_however_small_the_parameters():
    draw = np.random.default_rng(0)
    parameters = np.array([2.0, 1.0, 0.5])
    samples = dirichlet(np.tile(parameters, (40_000, 1)), draw)
    mean, total = parameters / 3.5, 3.5
    assert samples.mean(axis=0) == pytest.approx(mean, abs=0.005)
    assert samples.var(axis=0) == pytest.approx(mean * (1 - mean) / (total + 1), abs=0.003)
    small = dirichlet(np.full((5000, 3), 1e-3), draw)
    assert np.isfinite(small).all()
    assert (small.max(axis=1) > 0.99).mean() > 0.97
    assert small.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.03)
