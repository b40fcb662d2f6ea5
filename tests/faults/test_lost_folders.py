"""Folders that cannot be written, and a corpus or a store that is gone."""

import os
import shutil
from functools import partial

import pytest
from disturbances import before_call
from outcomes import arguments, differing, outcome
from subprocess_runner import run_command

from dograph.data.corpus.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STEPS = 16
SAVE = "dograph.training.checkpoint_writer:AtomicCheckpoints.save_checkpoint"


@pytest.fixture
def given(corpus_settings):
    """Arguments of a run in a place, with a store of its own."""
    return lambda place, *more: arguments("uniform_gpt2", corpus_settings, place, STEPS, *more)


@pytest.fixture(scope="module")
def expected(corpus_settings, store, tmp_path_factory):
    """The outcome of an undisturbed run."""
    whole = tmp_path_factory.mktemp("whole")
    place = f"corpus.store={corpus_settings.store}"
    given = arguments("uniform_gpt2", corpus_settings, whole, STEPS, place)
    code, text, _ = run_command(given, whole / "log")
    assert code == 0, text
    return outcome(seed_0(whole))


def seed_0(place):
    return place / "runs" / "uniform_gpt2" / "seed_0"


def stops(given, log, *expected, before=None):
    """The command stops with exit code 2, and its message says all of this."""
    code, text, _ = run_command(given, log, before)
    assert code == 2, text[-3000:]
    assert "Traceback" not in text, text[-3000:]
    for words in expected:
        assert words in text, text[-3000:]


def ends(given, log, expected, folder):
    """The command comes to the end of the undisturbed run."""
    code, text, _ = run_command(given, log)
    assert code == 0, text[-3000:]
    assert not differing(expected, outcome(folder))
    return text


def test_a_disk_that_cannot_be_written_at_first_or_in_between(
    given, expected, corpus_settings, disk, tmp_path
):
    """A run's folder on a read-only disk: the remedy, and nothing is lost."""
    log, place = tmp_path / "log", disk.folder
    where = given(place, f"corpus.store={corpus_settings.store}")
    disk.remount("ro")
    refused = "Read-only file system: make its file system writable or set runs to another place"
    stops(where, log, refused, "runs")
    disk.remount("rw")
    halt = partial(
        before_call,
        "dograph.training.checkpoint_writer:AtomicCheckpoints.save_checkpoint",
        2,
        _give_up,
    )
    run_command(where, log, halt)
    assert [path.name for path in (seed_0(place) / "checkpoints").iterdir()] == ["step=10.ckpt"]
    disk.remount("ro")
    stops(where, log, refused, "seed_0")
    disk.remount("rw")
    assert "resumes from" in ends(where, log, expected, seed_0(place))


def _give_up():
    os._exit(1)


def caches_in(folder):
    os.environ["DOGRAPH_CACHE"] = str(folder)


def test_a_store_where_nothing_can_be_written(given, expected, disk, tmp_path):
    """A store on a read-only disk is not made there, but read."""
    log = tmp_path / "log"
    where = given(tmp_path, f"corpus.store={disk.folder / 'store'}")
    disk.remount("ro")
    stops(where, log, "Read-only file system", "or set corpus.store to another place")
    disk.remount("rw")
    assert run_command(where, log, command="prepare")[0] == 0
    (disk.folder / "store.lock").unlink()
    disk.remount("ro")  # a store that is whole is read all the same
    ends(where, log, expected, seed_0(tmp_path))


def test_a_file_in_the_place_of_the_runs_folder(given, tmp_path):
    """The one obstacle that is not a disk's."""
    (tmp_path / "runs").write_text("")
    stops(given(tmp_path), tmp_path / "log", "Not a directory: move away the file")


@pytest.mark.parametrize("given", [True, False])
def test_the_corpus_is_gone_after_it_was_prepared(corpus_settings, expected, tmp_path, given):
    """The text of a store, given or in the cache, is missed, and found again."""
    log, source = tmp_path / "log", tmp_path / "text"
    shutil.copytree(corpus_settings.source, source)
    where = arguments("uniform_gpt2", corpus_settings, tmp_path, STEPS)
    where = [*where, f"corpus.source={source}"]
    where += [] if given else ["corpus.store=null"]
    cache = partial(caches_in, tmp_path / "cache")
    code, text, _ = run_command(where, log, cache, "prepare")
    assert code == 0, text
    source.rename(tmp_path / "elsewhere")
    stops(where, log, f"corpus.source is {source}, which is gone", "corpus.source=", before=cache)
    (tmp_path / "elsewhere").rename(source)
    code, text, _ = run_command(where, log, cache)
    assert code == 0, text
    assert not differing(expected, outcome(seed_0(tmp_path)))


def test_a_file_of_the_corpus_vanishes_while_it_is_prepared(
    corpus_settings, expected, tmp_path, store
):
    """A half-read source is no shorter source."""
    log, source = tmp_path / "log", tmp_path / "text"
    shutil.copytree(corpus_settings.source, source)
    where = [
        *arguments("uniform_gpt2", corpus_settings, tmp_path, STEPS),
        f"corpus.source={source}",
    ]
    lost, kept = source / "numbers.jsonl", tmp_path / "numbers.jsonl"
    vanishes = partial(
        before_call, "dograph.data.corpus.staging:PartWriter.add", 70, partial(lost.rename, kept)
    )
    stops(where, log, str(lost), "No such file or directory: put it back", before=vanishes)
    kept.rename(lost)
    ends(where, log, expected, seed_0(tmp_path))
    assert Store.open(tmp_path / "store").fingerprint == store.fingerprint


def test_the_store_is_gone_between_two_starts(given, expected, tmp_path):
    """A run resumes on a store that is made again."""
    log = tmp_path / "log"
    halt = partial(
        before_call,
        "dograph.training.checkpoint_writer:AtomicCheckpoints.save_checkpoint",
        2,
        _give_up,
    )
    run_command(given(tmp_path), log, halt)
    before = Store.open(tmp_path / "store").fingerprint
    shutil.rmtree(tmp_path / "store")
    assert "resumes from" in ends(given(tmp_path), log, expected, seed_0(tmp_path))
    assert Store.open(tmp_path / "store").fingerprint == before
