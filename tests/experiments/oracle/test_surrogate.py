"""The Gaussian process on losses whose optimum is known, and which mixtures are tried."""

import numpy as np
import pytest
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor

from dograph.experiments.oracle.design import CORNERS, candidates, first_mixtures, rounded
from dograph.experiments.oracle.surrogate import Surrogate, expected_improvement

NOISE = 0.01
USE = np.array([1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
"""What a domain's tokens are worth to the target of ``loss``."""


def loss(mixtures):
    """A convex loss with diminishing returns of seven domains, some 0.4 nats below even at best."""
    return 2.0 * (np.sqrt(mixtures) @ USE + 0.1) ** -0.5


BEST = USE**2 / (USE**2).sum()
"""It maximises Σ u √w on the simplex (Cauchy and Schwarz)."""


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_near_after_24_noisy_mixtures(seed):
    draw = np.random.default_rng(seed)
    tried = first_mixtures(24, np.zeros(7), seed)
    surrogate = Surrogate(tried, loss(tried) + NOISE * draw.normal(size=24), seed)
    even, best = loss(np.full((1, 7), 1 / 7)), loss(BEST)
    gap = float(even[0] - best)
    assert loss(surrogate.optimum()) - best < 0.15 * gap
    more = surrogate.propose(6)
    assert loss(more).min() - best < 0.1 * gap
    tried = np.concatenate([tried, more])
    again = Surrogate(tried, loss(tried) + NOISE * draw.normal(size=30), seed)
    optimum = again.optimum()
    assert loss(optimum) - best < 0.06 * gap
    mean, deviation = again.predict(optimum[None])
    assert abs(mean[0] - loss(optimum)) < 3 * deviation[0] + 2 * NOISE
    assert again.loo_error < 0.3 * loss(tried).std()
    assert "Matern" in again.kernel


def test_leave_one_out_is_what_leaving_one_out_gives():
    tried = first_mixtures(10, np.zeros(3))
    losses = np.linspace(2, 3, 10) + 0.1 * tried[:, 0]
    surrogate = Surrogate(tried, losses)
    process, errors = surrogate._process, []
    for left in range(10):
        others = np.arange(10) != left
        again = GaussianProcessRegressor(process.kernel_, optimizer=None, alpha=process.alpha)
        again.fit(process.X_train_[others], process.y_train_[others])
        errors.append(again.predict(process.X_train_[left, None])[0] - process.y_train_[left])
    expected = losses.std() * np.sqrt(np.mean(np.square(errors)))
    assert surrogate.loo_error == pytest.approx(expected, rel=1e-6)


def test_expected_improvement_is_the_mean_of_the_improvement():
    draws = stats.norm(1.0, 0.3).rvs(200_000, random_state=0)
    expected = np.maximum(0.9 - draws, 0).mean()
    given = expected_improvement(np.array([1.0]), np.array([0.3]), 0.9)
    assert given[0] == pytest.approx(expected, rel=0.02)
    assert expected_improvement(np.array([1.0]), np.array([0.0]), 0.9)[0] == pytest.approx(0)


def test_equal_losses_and_two_mixtures_are_no_reason_to_fail():
    tried = first_mixtures(2, np.zeros(3))
    surrogate = Surrogate(tried, np.array([2.0, 2.0]))
    assert surrogate.optimum().sum() == pytest.approx(1)
    assert len(surrogate.propose(2)) == 2


def test_the_first_mixtures_are_even_corners_and_samples():
    tried = first_mixtures(24, np.zeros(7))
    assert tried.shape == (24, 7)
    assert tried.sum(axis=1) == pytest.approx(1)
    assert tried.min() >= 0
    assert tried[0] == pytest.approx(1 / 7, abs=1e-3)
    assert len({tuple(row) for row in tried.tolist()}) == 24
    for top in CORNERS:
        tops = tried[np.isclose(tried.max(axis=1), top, atol=1e-3)]
        assert set(tops.argmax(axis=1)) == set(range(7))
    # More domains than mixtures: some corners, and still samples.
    assert first_mixtures(24, np.zeros(40)).shape == (24, 40)
    assert (first_mixtures(24, np.zeros(40))[16:].max(axis=1) != 0.85).all()
    assert (first_mixtures(24, np.zeros(7)) == tried).all()


def test_the_first_mixtures_of_two_domains_are_distinct_too():
    # Many samples round to (1, 0).
    rows = [tuple(row) for row in first_mixtures(300, np.zeros(2)).tolist()]
    assert len(set(rows)) == 300


def test_the_first_mixtures_lean_to_a_target_of_several_domains():
    target = np.array([0.5, 0.3, 0.2, 0, 0, 0])
    tried = first_mixtures(24, target)
    assert tried[1] == pytest.approx(0.9 * target + 0.1 / 6, abs=1e-3)
    assert tried[2] == pytest.approx(0.5 * target + 0.5 / 6, abs=1e-3)
    for alike in (np.eye(6)[0], np.full(6, 1 / 6)):  # a corner, and even
        assert (first_mixtures(24, alike) == first_mixtures(24, np.zeros(6))).all()


def test_proposals_are_new_and_on_the_simplex():
    tried = first_mixtures(8, np.zeros(3))
    more = Surrogate(tried, loss(np.pad(tried, ((0, 0), (0, 4))))).propose(5)
    rows = [tuple(row) for row in np.concatenate([tried, more]).tolist()]
    assert len(set(rows)) == 13
    assert more.sum(axis=1) == pytest.approx(1)
    sought = rounded(candidates(tried[:2], 50, np.random.default_rng(0)))
    assert sought.sum(axis=1) == pytest.approx(1)
    assert sought.min() >= 0
