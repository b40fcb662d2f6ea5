"""What a run found, as a sentence."""

import pytest

from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate
from dograph.reports.finding import finding, outstanding

SOURCES = ("python", "docs", "headers", "licences")
TERMS = {"influence": -1.0, "curvature": 0.2}


def schedule(*rows, target="stubs", errors=(0.05,) * 4, prior=None, measure=100):
    """Updates of (weights, influence), 20 steps apart."""
    updates = [
        ScheduleUpdate(100 + 20 * index, list(weights), list(influence), list(errors), TERMS)
        for index, (weights, influence) in enumerate(rows)
    ]
    return ScheduleSnapshot(SOURCES, target, updates, prior, measure)


def said(*rows, **settings):
    return finding(MixerSnapshot(schedule=schedule(*rows, **settings)))


ONE = ((0.88, 0.06, 0.03, 0.03), (1.24, 0.31, 0.2, -0.1))
TWO = ((0.5, 0.44, 0.03, 0.03), (1.24, 1.12, 0.2, -0.1))
ALIKE = ((0.28, 0.24, 0.24, 0.24), (1.02, 1.0, 0.98, 1.0))


def test_the_source_that_stands_out_is_named_with_its_influence_and_the_next():
    assert said(ONE) == (
        "python 0.88 at the end: most of what stubs needs (influence 1.24 ± 0.05; next docs "
        "0.31 ± 0.05), measured by step 100."
    )


def test_several_sources_are_named_by_their_weights():
    assert said(TWO).startswith(
        "python 0.50 and docs 0.44 at the end: most of what stubs needs (influence 1.24 ± 0.05 "
        "and 1.12 ± "
    )
    assert "; next headers 0.20 ± 0.05)" in said(TWO)


def test_less_than_half_is_not_most():
    some = ((0.4, 0.2, 0.2, 0.2), (1.24, 0.3, 0.3, 0.3))
    assert said(some).startswith("python 0.40 at the end: what stubs needs more of (")


@pytest.mark.parametrize(
    ("target", "name"),
    [("stubs", "stubs"), ("even", "the even target"), ("worst", "the worst domain")],
)
def test_without_a_difference_the_prior_is_kept(target, name):
    sentence = f"No source stands out for {name}: the prior is kept, within 0.03."
    assert said(ALIKE, target=target) == sentence


def test_a_difference_within_its_error_is_none():
    assert said(ONE, errors=(0.8,) * 4) == (
        "No source stands out for stubs: python rose most, from 0.25 to 0.88."
    )
    # One source's own small error is not trusted where the others' are large.
    assert not outstanding(schedule(ONE, errors=(0.01, 1.0, 1.0, 1.0)))


def test_influence_without_weight_is_nothing_that_was_drawn():
    assert not outstanding(schedule(ONE, prior=(0.88, 0.06, 0.03, 0.03)))
    assert "the prior is kept." in said(ONE, prior=(0.88, 0.06, 0.03, 0.03))


def test_what_stood_out_first_is_said_where_it_no_longer_does():
    assert said(ONE, ALIKE).endswith("within 0.03. At step 100: python 0.88.")
    assert said(TWO, ONE).endswith("measured by step 100. At step 100: docs 0.44.")


def test_only_what_was_measured_counts():
    assert "measured by step 120." in said(TWO, ONE, measure=120)
    assert said(ONE, measure=200).endswith("measured by step 100.")
    assert "measured by step 120." in said(TWO, ONE, measure=None)


def test_a_failed_update_says_so():
    update = ScheduleUpdate(120, [0.25] * 4, [1.0] * 4, [0.1] * 4, {})
    failed = MixerSnapshot(schedule=ScheduleSnapshot(SOURCES, "stubs", [update]))
    assert finding(failed) == "The solver failed at step 120: the prior is drawn."


def test_a_single_source_and_another_mixer_find_nothing():
    update = ScheduleUpdate(120, [1.0], [1.0], [0.1], TERMS)
    single = MixerSnapshot(schedule=ScheduleSnapshot(("all",), "stubs", [update]))
    assert finding(single) == "No source stands out for stubs: the prior is kept."
    assert finding(MixerSnapshot()) is None
