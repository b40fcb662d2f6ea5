"""The schedule's overhead: steps by kind, and their shares of a run."""

import pytest

from benchmarks.baselines import SCHEDULE_INTERVAL, SCHEDULE_MEASURE
from benchmarks.schedule import MEASURE, ROUNDS, WARM_UP, WAYS, Extra, extra, rows_of
from dograph.mixers import DoGraphSchedule


def test_steps_by_kind():
    times = []
    for done in range(WARM_UP + 1, WARM_UP + 1 + ROUNDS):
        update = done % SCHEDULE_INTERVAL == 0
        first = 4.0 if done == SCHEDULE_MEASURE else 2.2
        times.append(2.02 if done > SCHEDULE_MEASURE else first if update else 2.1)
    found = extra(times, [2.0] * ROUNDS)
    assert (found.plain, found.update, found.first) == pytest.approx((0.05, 0.1, 1.0))
    assert found.later == pytest.approx(0.01)


def test_a_run_counts_what_is_read():
    mixer = DoGraphSchedule(measure=MEASURE)
    while_reading, run = rows_of("nano", next(iter(WAYS)), Extra(0.1, 0.1, 0.5, 0.3))
    assert while_reading.figure == "1.100"
    share = 0.1 * (mixer.measure - mixer.skip) + 0.4
    assert run.figure == f"{1 + share / 400:.3f}"
    assert run.holds
