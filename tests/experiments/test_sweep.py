"""Recipes over seeds: what is missing runs, once, whatever happens in between."""

import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from dograph.errors import UserError
from dograph.experiments.open_run import claimed
from dograph.experiments.sweep import Sweep, environment_of, jobs_of
from dograph.training.checkpoint_reader import newest_sound, steps_done


def sweep(recipes, seeds=(0, 1), **more):
    ran = Sweep(recipes, seeds, console=Console(file=sys.stderr, width=200), threads=1, **more)
    return ran, ran.run()


def times(folders):
    return [(folder / "summary.json").stat().st_mtime_ns for folder in folders]


def test_a_sweep_runs_everything_once_and_reports_failures(
    small_recipe, tmp_path, capfd, warm_sweeps
):
    good = small_recipe("even")
    bad = small_recipe("bad", "dograph.mixers.Fixed\n  init_args: {weights: {nosuch: 1.0}}")
    first, folders = sweep([bad, good], seeds=[1], processes=2)
    assert folders == [tmp_path / "runs" / "even" / "seed_1"]
    assert [(failure.job.name, failure.reason) for failure in first.failures] == [
        ("bad seed 1", "exit code 2")
    ]
    assert "nosuch" in first.failures[0].last_lines()
    said = capfd.readouterr().err
    assert "2 runs: 0 finished, 2 to do, 2 at once" in said
    assert "bad seed 1: failed (exit code 2)" in said
    before = times(folders)
    again, folders = sweep([good], seeds=[1])
    assert "1 runs: 1 finished, 0 to do" in capfd.readouterr().err
    assert not again.failures
    assert times(folders) == before
    # Another learning rate is another run; the one that is there stays.
    (other,) = jobs_of([good], [1], ["model.learning_rate=5.0e-4"])
    assert other.finished() is None


@pytest.mark.slow
def test_a_sweep_that_is_stopped_resumes_where_it_was(small_recipe, tmp_path):
    """A sweep and its run as processes of a terminal: SIGTERM is passed on, and nothing lost."""
    path = small_recipe("long", steps=400)
    words = [sys.executable, "-m", "dograph", "sweep", str(path), "--seeds", "0", "--threads", "1"]
    folder = tmp_path / "runs" / "long" / "seed_0"
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob("checkpoints/*.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"every run saves a checkpoint" in out
    assert 0 < steps_done(newest_sound(folder)) < 400
    with claimed(folder):  # nothing runs in it any more
        pass
    again, folders = sweep([path], seeds=[0])
    assert folders == [folder]
    assert not again.failures
    log = (tmp_path / "runs" / "logs" / "long_seed_0.log").read_text()
    assert "resumes from" in log


@pytest.mark.slow
def test_stages_run_in_a_sweep_and_count_as_one(small_recipe, tmp_path, capfd, warm_sweeps):
    """A sweep knows a finished recipe with stages by its digest."""
    path = small_recipe("staged")
    text = path.read_text().replace("mixer:\n  class_path: dograph.mixers.Stratified\n", "")
    path.write_text(
        text + "stages:\n  proxy: {mixer: {class_path: dograph.mixers.DoReMiOnline}}\n"
        "  main:\n    mixer:\n      class_path: dograph.mixers.Fixed\n"
        "      init_args: {weights: '${stages.proxy.weights}'}\n"
    )
    first, folders = sweep([path], seeds=[3])
    assert not first.failures
    assert folders == [tmp_path / "runs" / "staged" / "seed_3"]
    before = times(folders)
    sweep([path], seeds=[3])
    assert "1 runs: 1 finished, 0 to do" in capfd.readouterr().err
    assert times(folders) == before


def test_mistakes_show_before_anything_runs(small_recipe, tmp_path):
    good = small_recipe("even")
    with pytest.raises(UserError, match=r"broken\.yaml: unknown key 'trainr'"):
        sweep([good, small_recipe("broken", more="trainr: {max_steps: 3}\n")])
    with pytest.raises(UserError, match="another recipe writes to"):
        sweep([good, good])
    with pytest.raises(UserError, match=r"seeds is \[1, 1\]: name each seed once"):
        sweep([good], seeds=[1, 1])
    with pytest.raises(UserError, match="name the seeds with --seeds"):
        sweep([good], overrides=["seed=3"])
    with pytest.raises(UserError, match="processes is 0"):
        sweep([good], processes=0)
    assert not (tmp_path / "runs").exists()


def test_runs_at_once_share_out_cores_and_devices(monkeypatch):
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert environment_of(1, 4, None) == {"OMP_NUM_THREADS": "2"}
    assert environment_of(0, 16, None) == {"OMP_NUM_THREADS": "1"}
    assert environment_of(0, 2, 3) == {"OMP_NUM_THREADS": "3"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert environment_of(1, 4, 1)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(0, 1, 1)
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(0, 9, 1)
    # What the user has set holds.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment_of(1, 2, None) == {"CUDA_VISIBLE_DEVICES": "6,7"}
