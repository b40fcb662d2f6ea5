"""Intervals, verdicts and crossings against known answers and identities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dograph.experiments.comparison.statistics import estimate, first_reach, holm, p_value, verdict

numbers = st.lists(st.floats(-5, 5), min_size=2, max_size=12)


@given(numbers)
def test_an_interval_is_scipys(values):
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    spread = stats.sem(values)
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), spread)
        assert found.bounds == pytest.approx((low, high))


def test_an_interval_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        low, high = estimate(draw.normal(1.0, 2.0, 5).tolist()).bounds
        inside += low <= 1.0 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([-0.1, -0.12, -0.09, -0.11, -0.1], "win"),
        ([0.1, 0.12, 0.09, 0.11, 0.1], "loss"),
        ([-0.1, -0.12, -0.09, -0.11], "ahead"),
        ([0.1, 0.12, 0.09, 0.11], "behind"),
        ([-0.1, 0.1, 0.02], "tie"),
        ([-0.1], "tie"),
        ([-0.1, -0.1], "ahead"),
        ([0.0, 0.0, 0.0], "tie"),
    ],
)
def test_verdicts(differences, expected):
    assert verdict(estimate(differences), p_value(differences)) == expected


def test_a_verdict_follows_the_adjusted_p():
    assert verdict(estimate([-0.1, -0.12, -0.09]), 0.051) == "tie"


@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=9))
def test_an_interval_and_its_p_value_never_contradict_each_other(differences):
    # The interval excludes zero just where the paired t-test's p is below 5 %.
    p = p_value(differences)
    low, high = estimate(differences).bounds
    if abs(p - 0.05) > 1e-6:
        assert (low > 0 or high < 0) == (p < 0.05)


def test_methods_that_differ_in_nothing_are_rarely_told_apart():
    # Eight methods and a common baseline, five seeds, no difference: 5 % of studies at most.
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        base = draw.normal(size=5)
        differences = [draw.normal(size=5) - base for _ in range(8)]
        adjusted = holm([p_value(values) for values in differences])
        verdicts = [
            verdict(estimate(values), p) for values, p in zip(differences, adjusted, strict=True)
        ]
        wrong += any(found != "tie" for found in verdicts)
    assert wrong / 400 <= 0.06


def test_holms_published_example():
    # Holm (1979): m p_(1), (m − 1) p_(2), … and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_keeps_the_order_and_only_raises(p_values):
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)


def test_where_a_curve_first_reaches_a_target():
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 3.5) == 25
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 3.0) == 30
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 6.0) == 10  # nothing is known before
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 2.9) is None
    assert first_reach([10, 20, 30], [5.0, math.nan, 3.0], 3.5) == 30
    assert first_reach([10, 20, 30, 40], [5.0, 3.0, 5.0, 2.0], 4.0) == 15  # the first time
    assert first_reach([], [], 1.0) is None
