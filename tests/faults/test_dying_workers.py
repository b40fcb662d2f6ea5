"""Loader processes that die, and that never outlive their run."""

import os
import signal
import time

import pytest
from disturbances import dies, group_members, loses_a_worker
from outcomes import arguments, differing, outcome
from subprocess_runner import run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def given(corpus_settings, store):
    place = f"corpus.store={corpus_settings.store}"
    return lambda folder: arguments(
        "dograph_gpt2", corpus_settings, folder, 24, place, "data.workers=2"
    )


def no_process_left(group, seconds):
    deadline = time.monotonic() + seconds
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not group_members(group)


def test_a_dead_worker_stops_the_run_which_then_resumes(given, tmp_path):
    """A loader process killed by the system, as when memory runs out."""
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run_command(given(whole), tmp_path / "log")[0] == 0
    code, text, group = run_command(given(tmp_path), tmp_path / "log", loses_a_worker(14))
    assert code == 2, text[-3000:]
    assert "Traceback" not in text, text[-3000:]
    assert "one of data.workers=2 loader processes has died" in text
    assert "lower data.workers" in text
    assert no_process_left(group, 5), group_members(group)
    code, text, _ = run_command(given(tmp_path), tmp_path / "log")
    assert code == 0 and "resumes from" in text, text[-3000:]
    run = ("runs", "dograph_gpt2", "seed_0")
    assert not differing(outcome(whole.joinpath(*run)), outcome(tmp_path.joinpath(*run)))


def test_workers_end_by_themselves_after_a_kill(given, tmp_path):
    """Nothing of a killed run goes on using memory."""
    code, _, group = run_command(given(tmp_path), tmp_path / "log", dies(12))
    assert code == -signal.SIGKILL
    assert no_process_left(group, 20), group_members(group)
    assert os.getpid() != group
