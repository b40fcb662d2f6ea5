"""Clocks that jump between a kill and the next start."""

import os
import time

import pytest
from disturbances import dies
from outcomes import arguments, differing, outcome
from subprocess_runner import run_command

from dograph.reports.tensorboard import settle_event_files

DAY = 86_400
CLOCKS = {
    "set back": [(0, False), (-DAY, False), (-2 * DAY, False)],
    "ahead, then right": [(DAY, False), (0, False), (DAY, False)],
    "standing still": [(0, True), (0, True), (-5, True)],
}
"""(shift in seconds, whether it stands still) of each start."""


RUN = ("runs", "uniform_gpt2", "seed_0")


@pytest.fixture(scope="module")
def given(corpus_settings, store):
    place = f"corpus.store={corpus_settings.store}"
    return lambda folder: arguments("uniform_gpt2", corpus_settings, folder, 40, place)


@pytest.fixture(scope="module")
def expected(given, tmp_path_factory):
    """The outcome of an undisturbed run."""
    whole = tmp_path_factory.mktemp("whole")
    assert run_command(given(whole), whole / "log")[0] == 0
    return outcome(whole.joinpath(*RUN))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("clocks", CLOCKS)
def test_a_run_resumes_whatever_the_clock_says(given, expected, tmp_path, clocks):
    """Neither checkpoints nor event files are ordered by a clock."""
    disturbed, log = tmp_path / "disturbed", tmp_path / "log"
    for (shift, stands), dies_at in zip(CLOCKS[clocks], (19, 15, 0), strict=True):
        begin = time.time() if not stands else int(tmp_path.stat().st_mtime)
        code, text, _ = run_command(
            given(disturbed), log, dies(dies_at, (shift + begin - time.time(), stands))
        )
        assert (code == 0) == (dies_at == 0), text[-3000:]
        for path in disturbed.joinpath("runs").rglob("*"):
            os.utime(path, (time.time() + shift, time.time() + shift))
    assert not differing(expected, outcome(disturbed.joinpath(*RUN)))


def test_event_files_keep_their_order_whenever_the_renaming_is_cut_short(tmp_path, monkeypatch):
    later = int(time.time()) + DAY
    names = [f"events.out.tfevents.{later + i}.host.{90 - i}.0" for i in range(5)]
    (tmp_path / "events.out.tfevents.notes").write_text("")
    for number, name in enumerate(names):
        (tmp_path / name).write_text(str(number))

    def order():
        files = sorted(tmp_path.glob("events.out.tfevents.[0-9]*"))
        return [path.read_text() for path in files]

    renamed, rename = [], type(tmp_path).rename

    def interrupted(path, target):
        if len(renamed) % 2:
            renamed.append(None)
            raise KeyboardInterrupt
        renamed.append(target)
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", interrupted)
    for _ in range(9):
        try:
            settle_event_files(tmp_path)
        except KeyboardInterrupt:
            assert order() == list("01234")
    monkeypatch.undo()
    settle_event_files(tmp_path)
    assert order() == list("01234")
    assert (
        max(path.name for path in tmp_path.glob("events.*[0-9]")) < f"{names[0][:20]}{time.time()}"
    )
    (tmp_path / f"events.out.tfevents.{int(time.time()) - 1}.host.1.0").write_text("5")
    before = sorted(tmp_path.iterdir())
    settle_event_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
