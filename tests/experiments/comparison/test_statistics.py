"""Intervals, verdicts and crossings against known answers and identities."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from dograph.experiments.comparison.statistics import (
    detectable,
    estimate,
    first_reach,
    holm,
    holm_levels,
    p_value,
    verdict,
)

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


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=7), st.integers(0, 6))
def test_below_its_level_a_p_value_is_claimed_by_holm(p_values, place):
    place %= len(p_values)
    level = holm_levels(p_values)[place]
    for factor, claimed in ((1 - 1e-6, True), (1 + 1e-6, False)):
        moved = [*p_values[:place], level * factor, *p_values[place + 1 :]]
        assert (holm(moved)[place] < 0.05) == claimed


def test_holms_levels_of_a_study():
    # What is claimed already leaves the others its part: a third method's level is 5 % whole.
    assert holm_levels([1e-6, 0.5, 1e-5]) == pytest.approx([0.025, 0.05, 0.025])
    assert holm_levels([0.5, 0.6]) == pytest.approx([0.025] * 2)
    assert holm_levels([]) == []


@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_a_detectable_difference_is_found_in_four_of_five_studies(seeds, level):
    draw = np.random.default_rng(seeds)
    pilot = estimate(draw.normal(scale=0.1, size=seeds).tolist())
    size = detectable(pilot, level)
    studies = size + pilot.spread * draw.normal(size=(20_000, seeds))
    found = stats.ttest_1samp(studies, 0, axis=1).pvalue < level
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_a_method_among_others_is_found_in_four_of_five_studies():
    # Whole studies of three methods: one that is surely ahead, one tie, and one at the edge.
    draw = np.random.default_rng(1)
    others = [1e-5, 0.4]
    pilot = estimate(draw.normal(size=5).tolist())
    size = detectable(pilot, holm_levels([*others, p_value(pilot.values)])[2])
    studies = size + pilot.spread * draw.normal(size=(800, 5))
    found = [holm([*others, p_value(values)])[2] < 0.05 for values in studies]
    assert np.mean(found) == pytest.approx(0.8, abs=0.035)


@given(numbers, st.floats(-3, 3))
def test_what_is_detectable_follows_from_the_spread_alone(values, shift):
    here = estimate(values)
    assume(here.spread > 1e-6)
    size = detectable(here, 0.05)
    moved = estimate([2 * value + shift for value in values])
    assert detectable(moved, 0.05) == pytest.approx(2 * size, abs=1e-9)
    assert detectable(here, 0.01) >= size
    assert size >= here.half - 1e-9  # where it would be found in one of two studies


def test_one_seed_detects_nothing():
    assert detectable(estimate([0.3]), 0.05) is None


@pytest.mark.parametrize("differences", [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
def test_where_nothing_varies_the_noise_is_not_known(differences):
    """Runs that are alike once claimed that differences of 0.000 would be found."""
    assert detectable(estimate(differences), 0.05) is None


def test_where_a_curve_first_reaches_a_target():
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 3.5) == 25
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 3.0) == 30
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 6.0) == 10  # nothing is known before
    assert first_reach([10, 20, 30], [5.0, 4.0, 3.0], 2.9) is None
    assert first_reach([10, 20, 30], [5.0, math.nan, 3.0], 3.5) == 30
    assert first_reach([10, 20, 30, 40], [5.0, 3.0, 5.0, 2.0], 4.0) == 15  # the first time
    assert first_reach([], [], 1.0) is None
