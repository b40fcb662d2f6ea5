"""A run whose chunk is damaged: it says so, keeps its checkpoints, and ends right in the end."""

import functools
import os
import shutil
import time

import pytest
from outcomes import differing, outcome

from dograph.cli.main import main
from dograph.training.checkpoint_writer import AtomicCheckpoints

STEPS = 24


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def delete(path):
    path.unlink()


class DamagedRun:
    """A small run, its own copy of the store, and one chunk of it."""

    def __init__(self, small_recipe, store, tmp_path, workers):
        self.place = tmp_path / "store"
        shutil.copytree(store.path, self.place)
        self.chunk = self.place / "domains" / "code" / "train" / "chunk-0-0.bin"
        self.kept = self.chunk.read_bytes()
        self.recipe = str(small_recipe("small", steps=STEPS))
        self.workers = workers

    def __call__(self, runs):
        more = [f"corpus.store={self.place}", f"data.workers={self.workers}", f"runs={runs}"]
        return main(["run", self.recipe, *more])

    def restore(self):
        self.chunk.write_bytes(self.kept)


@pytest.fixture
def damaged_run(small_recipe, store, tmp_path):
    return lambda workers: DamagedRun(small_recipe, store, tmp_path, workers)


def check_message(text, path):
    """The plain message, once, without a worker's traceback."""
    assert f"error: {path}: the store is damaged" in text
    assert f"move {path.parents[3]} away" in text
    assert "dograph prepare" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("damage", [flip, cut, delete])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_chunk_damaged_before_the_start(damaged_run, workers, damage, tmp_path, capfd):
    run = damaged_run(workers)
    damage(run.chunk)
    assert run(tmp_path / "runs") == 2
    check_message(capfd.readouterr().err, run.chunk)


def damage_in_the_middle(run, damage, folder, monkeypatch):
    """The exit code of a run whose chunk is damaged after its second checkpoint."""
    saved = []
    save = AtomicCheckpoints.save_checkpoint

    def save_and_damage(self, *arguments, **keywords):
        save(self, *arguments, **keywords)
        saved.append(True)
        if len(saved) == 2:
            damage(run.chunk)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpoints, "save_checkpoint", save_and_damage)
        code = run(folder)
    assert len(saved) in (2, 3)  # what the workers had read before is still used
    return code


@pytest.fixture(scope="module")
def expected(recipe_text, tmp_path_factory):
    """The outcome of an undisturbed run by its loader processes, which its state names."""

    @functools.cache
    def ran(workers):
        runs = tmp_path_factory.mktemp("whole")
        (runs / "small.yaml").write_text(recipe_text("small", steps=STEPS))
        more = [f"runs={runs}", f"data.workers={workers}"]
        assert main(["run", str(runs / "small.yaml"), *more]) == 0
        return outcome(runs / "small" / "seed_0")

    return ran


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "workers"), [(flip, 0), (flip, 2), (cut, 2), (delete, 0), (delete, 2)]
)
def test_a_chunk_damaged_in_the_middle(
    damaged_run, expected, workers, damage, tmp_path, monkeypatch, capfd
):
    """A chunk that was sound when the run began: checkpoints hold nothing of what it became."""
    run, whole = damaged_run(workers), expected(workers)
    assert damage_in_the_middle(run, damage, tmp_path / "runs", monkeypatch) == 2
    check_message(capfd.readouterr().err, run.chunk)
    folder = tmp_path / "runs" / "small" / "seed_0"
    assert list((folder / "checkpoints").glob("*.ckpt"))
    run.restore()
    # TensorBoard reads event files in the order of their names, which tell the second, the process
    # and a counter: within one second and one process, the tenth would come before the ninth.
    time.sleep(1.1)
    assert run(tmp_path / "runs") == 0
    assert "resumes from" in capfd.readouterr().out
    assert not differing(whole, outcome(folder))
