"""Bootstrap intervals against formulas."""

import math

import numpy as np
import pytest

from dograph.evaluation.held_out import HeldOut
from dograph.evaluation.scores import scores


def held_out(name, seed, mean, deviation, count=200, train_tokens=100):
    nats = np.random.default_rng(seed).normal(mean, deviation, count) * 10
    return HeldOut(name, nats, 10, np.full(count, 40), train_tokens)


def test_intervals_are_those_of_a_mean():
    one = held_out("one", 1, 4.0, 0.5)
    found = scores([one], resamples=4000).domains[0].score
    half = 1.96 * (one.nats / 10).std() / math.sqrt(200)
    assert found.loss.value == pytest.approx(one.nats.mean() / 10)
    assert found.loss.high - found.loss.low == pytest.approx(2 * half, rel=0.06)
    assert found.perplexity.high == pytest.approx(math.exp(found.loss.high), rel=1e-3)
    assert found.bits_per_byte.low == pytest.approx(found.loss.low / math.log(2) / 4)


def test_the_mean_over_domains_is_surer_than_one_of_them():
    domains = [held_out(str(seed), seed, 4.0, 0.5) for seed in range(4)]
    found = scores(domains, resamples=2000)
    widths = [d.score.loss.high - d.score.loss.low for d in found.domains]
    together = found.mean.loss.high - found.mean.loss.low
    assert together == pytest.approx(np.mean(widths) / 2, rel=0.1)


def test_worst_and_weighted():
    domains = [
        held_out("small", 1, 5.0, 0.1, train_tokens=100),
        held_out("large", 2, 3.0, 0.1, train_tokens=300),
    ]
    found = scores(domains, resamples=50)
    small, large = found.losses["small"], found.losses["large"]
    assert found.worst_domain == "small"
    assert found.worst.loss == found.domains[0].score.loss
    assert found.weighted.loss.value == pytest.approx((small + 3 * large) / 4)


def test_the_seed_decides_the_draws():
    domains = [held_out("one", 1, 4.0, 0.5, count=20)]
    first, again, other = (scores(domains, 100, seed).mean.loss for seed in (0, 0, 1))
    assert first == again
    assert first.value == other.value
    assert first.low != other.low
    same = HeldOut("same", np.full(5, 30.0), 10, np.full(5, 40), 1)
    assert scores([same], 10).mean.loss.low == scores([same], 10).mean.loss.high == 3.0


def test_what_is_not_finite_is_null_in_json():
    lost = HeldOut("lost", np.full(3, math.nan), 10, np.full(3, 40), 1)
    assert scores([lost], 5).as_json()["mean"]["loss"]["value"] is None
