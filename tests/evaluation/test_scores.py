"""Bootstrap intervals against formulas."""

import dataclasses
import io
import math

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import t as student

from dograph.evaluation.bootstrap import scores, widening
from dograph.evaluation.evaluate import few_sequences_note, scores_table
from dograph.evaluation.held_out import HeldOut
from dograph.mixers.target import Target


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


@pytest.mark.parametrize(
    ("value", "unseen", "loss", "few"),
    [
        ("hard", ["hard"], 6.0, False),
        (None, ["hard"], 4.5, True),
        ({"easy": 1, "hard": 3}, [], 5.5, False),
        ("worst", [], 6.0, True),
    ],
)
def test_the_target_is_scored(value, unseen, loss, few):
    domains = [
        held_out("easy", 1, 4.0, 0.01),
        held_out("one", 2, 5.0, 0.01, count=1),
        held_out("hard", 3, 6.0, 0.01),
    ]
    found = scores(domains, 50, target=Target.parse(value, unseen))
    assert found.target.loss.value == pytest.approx(loss, abs=0.02)
    assert (found.target.loss.low is None) == few  # of a domain of one sequence
    screen = io.StringIO()
    Console(file=screen, width=100).print(scores_table(found))
    assert f"target: {Target.parse(value).label}" in screen.getvalue()
    assert scores(domains, 5).as_json()["target"] is None


def coverage(counts, times=700):
    """Of the true value 4.0, by the mean over domains of so many normal losses each."""
    draw = np.random.default_rng(5)
    hits = 0
    for _ in range(times):
        domains = [
            HeldOut(str(i), draw.normal(40.0, 3.0 + i, n), 10, np.full(n, 40), 1)
            for i, n in enumerate(counts)
        ]
        loss = scores(domains, resamples=400).mean.loss
        hits += loss.low <= 4.0 <= loss.high
    return hits / times


@pytest.mark.parametrize("counts", [[3], [96], [8, 96]])
def test_95_percent_are_95_percent_of_few_sequences_too(counts):
    assert 0.93 <= coverage(counts) <= 0.98


def test_few_sequences_widen_by_the_formula():
    one = held_out("one", 1, 4.0, 0.5, count=8)
    expected = math.sqrt(8 / 7) * student.ppf(0.975, 7) / 1.959964
    assert widening([one], np.ones(1)) == pytest.approx(expected)
    twice = widening([one, one], np.ones(2) / 2)  # 14 degrees of freedom
    assert twice == pytest.approx(math.sqrt(8 / 7) * student.ppf(0.975, 14) / 1.959964)
    alone = scores([one], resamples=4000).mean.loss
    half = student.ppf(0.975, 7) * (one.nats / 10).std(ddof=1) / math.sqrt(8)
    assert alone.high - alone.low == pytest.approx(2 * half, rel=0.05)


def test_one_sequence_has_no_interval():
    domains = [held_out("one", 1, 4.0, 0.5, count=1), held_out("two", 2, 5.0, 0.5, count=50)]
    found = scores(domains, resamples=20)
    single, many = found.domains
    assert single.score.loss.value == pytest.approx(domains[0].nats[0] / 10)
    assert many.score.loss.low < many.score.loss.value < many.score.loss.high
    for score in (single.score, found.mean, found.worst, found.weighted):
        for interval in (score.loss, score.perplexity, score.bits_per_byte):
            assert interval.low is interval.high is None
    assert found.as_json()["domains"]["one"]["loss"]["low"] is None
    note = few_sequences_note(found)
    assert "one 1;" in note
    assert "two" not in note
    assert few_sequences_note(scores(domains[1:], resamples=2)) is None
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(scores_table(found))
    assert "[none]" in console.export_text()


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


def test_each_worst_value_names_its_own_domain():
    domains = [
        HeldOut("long_tokens", np.full(4, 50.0), 10, np.full(4, 80), 1),
        HeldOut("short_tokens", np.full(4, 30.0), 10, np.full(4, 10), 1),
    ]
    found = scores(domains, resamples=5)
    worst = found.as_json()["worst"]
    assert worst["loss"]["domain"] == worst["perplexity"]["domain"] == "long_tokens"
    assert worst["bits_per_byte"]["domain"] == "short_tokens"
    assert worst["loss"]["value"] == found.losses["long_tokens"]
    assert worst["bits_per_byte"]["value"] == found.domains[1].score.bits_per_byte.value


def test_weighted_bits_are_all_bits_over_all_bytes():
    domains = [
        HeldOut("wordy", np.array([20.0, 30.0]), 10, np.array([30, 50]), 100),
        HeldOut("terse", np.array([50.0, 70.0]), 10, np.array([10, 20]), 300),
    ]
    nats = (100 * 2.5 + 300 * 6.0) / 400  # a token
    size = (100 * 4.0 + 300 * 1.5) / 400  # bytes a token
    found = scores(domains, resamples=5).weighted
    assert found.loss.value == pytest.approx(nats)
    assert found.bits_per_byte.value == pytest.approx(nats / size / math.log(2))
    assert found.bits_per_byte.value != pytest.approx(found.loss.value)


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


def test_scores_without_bytes_have_no_bits_per_byte():
    kept = HeldOut("kept", np.full(4, 50.0), 10, np.full(4, 80), 1)
    lost = HeldOut("lost", np.full(4, 30.0), 10, None, 1)
    found = scores([kept, lost], 50, target=Target())
    for score in (found.mean, found.worst, found.weighted, found.target, found.domains[0].score):
        assert score.bits_per_byte is None
    assert (
        found.mean.loss == scores([kept, dataclasses.replace(lost, bytes=kept.bytes)], 50).mean.loss
    )
    assert found.as_json()["worst"]["bits_per_byte"] is None
    assert found.as_json()["domains"]["kept"]["bytes"] is None
    assert "–" in [*map(str, scores_table(found).columns[-1].cells)]
