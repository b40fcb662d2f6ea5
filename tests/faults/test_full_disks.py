"""A disk that fills up under a command: it stops with the remedy, and resumes exactly once there is
room again."""

import os
import random
import shutil
from functools import partial

import pytest
from disturbances import CHECKPOINT, fill, fills
from outcomes import arguments, differing, outcome
from subprocess_runner import run_command

from dograph.data.corpus.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STEPS, PAGE = 24, "report.html"
WRITERS = {
    "the event file itself": ("lightning.pytorch.trainer.trainer:Trainer.fit", 1, 0),
    "where the run came from": ("dograph.experiments.provenance:Provenance.on_fit_start", 1, 0),
    "points": ("dograph.reports.mixture_report:MixtureReport._log_point", 4, 0),
    "a point, half": ("dograph.reports.mixture_report:MixtureReport._log_point", 5, 4096),
    "a checkpoint, half": (CHECKPOINT, 2, 100_000),
    "a picture": ("dograph.reports.tensorboard:Board.picture", 2, 0),
    "the history": ("dograph.reports.history:MixtureHistory.write", 1, 0),
    "the summary": ("dograph.reports.mixture_report:write_summary", 1, 0),
    "the last checkpoint": (CHECKPOINT, 3, 8192),
}
STAGES = {
    "the lock": ("dograph.data.corpus.prepare:exclusive", 1, 0),
    "documents": ("dograph.data.corpus.staging:PartWriter.add", 100, 8192),
    "hashes": ("dograph.data.corpus.dedup:SeenDocuments.commit", 1, 0),
    "the tokenizer": ("dograph.data.corpus.tokenize_process:TokenizeProcess.train", 1, 0),
    "tokens": ("dograph.data.corpus.tokenize_process:TokenizeProcess.run", 1, 4096),
    "the manifest": ("dograph.data.corpus.store:Store.write_manifest", 1, 0),
}


@pytest.fixture(scope="module")
def small_run(corpus_settings, store, tmp_path_factory):
    """(function from a folder to the run's arguments, its undisturbed outcome, its size)."""
    whole = tmp_path_factory.mktemp("whole")
    given = partial(_given, corpus_settings, corpus_settings.store)
    code, text, _ = run_command(given(whole), whole / "log")
    assert code == 0, text
    run = whole / "runs" / "uniform_gpt2" / "seed_0"
    # But its page, which is made again by a command of its own.
    size = sum(path.stat().st_size for path in run.rglob("*") if path.name != PAGE)
    return given, outcome(run), size


def _given(settings, store, place):
    more = [f"corpus.store={store}"]
    return arguments("uniform_gpt2", settings, place, STEPS, *more)


def stops_then_resumes(small_run, disk, log, before):
    """Stopped by a full disk, then run again on an empty one: equal to the bit."""
    given, expected, _ = small_run
    code, text, _ = run_command(given(disk.folder), log, before)
    assert code == 2, text[-3000:]
    assert "Traceback" not in text, text[-3000:]
    assert "No space left on device: free some space" in text, text[-3000:]
    assert "run the same command again" in text
    disk.free()
    disk.remount("size=64m")
    code, text, _ = run_command(given(disk.folder), log)
    assert code == 0, text[-3000:]
    runs = disk.folder / "runs" / "uniform_gpt2"
    assert [path.name for path in runs.iterdir()] == ["seed_0"]
    assert not differing(expected, outcome(runs / "seed_0"))
    assert not list(runs.glob("**/*.partial"))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_run_whose_disk_is_full_at_one_writer(small_run, disk, tmp_path, writer):
    """Every file of a run, half written or not at all."""
    target, number, room = WRITERS[writer]
    before = fills(target, number, disk.folder, room)
    stops_then_resumes(small_run, disk, tmp_path / "log", before)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_run_on_too_small_a_disk(small_run, disk, tmp_path, chance, share):
    """Writers that nobody thought of, wherever the disk happens to end."""
    size = int(small_run[2] * share * chance.uniform(0.9, 1.0))
    disk.remount(f"size={max(size, 8192)}")
    stops_then_resumes(small_run, disk, tmp_path / "log", None)


def test_a_page_without_room_is_written_later(small_run, disk, tmp_path):
    given, expected, _ = small_run
    before = fills("dograph.experiments.run:write_page", 1, disk.folder, 4096)
    code, text, _ = run_command(given(disk.folder), tmp_path / "log", before)
    run = disk.folder / "runs" / "uniform_gpt2" / "seed_0"
    assert code == 2, text[-3000:]
    assert f"write its page with `dograph report {run}`" in text
    assert not differing(expected, outcome(run))
    disk.free()
    disk.remount("size=64m")
    assert run_command([str(run)], tmp_path / "log", command="report")[0] == 0
    assert (run / PAGE).stat().st_size > 10_000


@pytest.mark.parametrize("stage", STAGES)
def test_a_corpus_whose_disk_is_full(corpus_settings, store, disk, tmp_path, stage):
    """Every file of a store in the making, also those of the tokenising process."""
    target, number, room = STAGES[stage]
    given = arguments("uniform_gpt2", corpus_settings, disk.folder, STEPS)
    before = fills(target, number, disk.folder, room)
    code, text, _ = run_command(given, tmp_path / "log", before, "prepare")
    assert code == 2, text[-3000:]
    assert "Traceback" not in text, text[-3000:]
    assert "No space left on device: free some space or set corpus.store" in text, text[-3000:]
    disk.free()
    code, text, _ = run_command(given, tmp_path / "log", command="prepare")
    assert code == 0, text[-3000:]
    assert Store.open(disk.folder / "store").fingerprint == store.fingerprint
    assert not (disk.folder / "store.partial").exists()


def test_the_filler_leaves_the_room_it_is_asked_for(disk):
    fill(disk.folder, 8192)
    (disk.folder / "fits").write_bytes(random.randbytes(8192))
    with pytest.raises(OSError, match="No space"):
        (disk.folder / "more").write_bytes(b"1" * 8192)
    disk.free()
    shutil.rmtree(disk.folder / "fits", ignore_errors=True)
    assert os.statvfs(disk.folder).f_bavail > 0
