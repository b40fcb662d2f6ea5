"""A run's folder: one process at a time, recognised, resumed, and never left."""

import json
import os

import pytest
import torch

from dograph.errors import UserError
from dograph.experiments.open_run import (
    check_inside,
    check_resumable,
    claimed,
    free_folder,
    open_run,
    place_for,
)
from dograph.experiments.run_inputs import RunInputs
from dograph.files.run_dir import CHECKPOINTS, FINAL_CHECKPOINT, PROVENANCE
from dograph.training.checkpoint_writer import PARTIAL, AtomicCheckpoints


def save(path, step):
    content = {"global_step": step, "state_dict": {"w": torch.zeros(3)}}
    AtomicCheckpoints().save_checkpoint(content, path)
    return path


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    folder = tmp_path / "seed_0"
    with claimed(folder):
        running = rf"process {os.getpid()} on .* is running this"
        with pytest.raises(UserError, match=running), claimed(folder):
            pass
        assert free_folder(folder) == folder  # nothing has begun in it
    with claimed(folder):
        (folder / PROVENANCE).write_text('{"digest": "a"}')
    assert free_folder(folder) == tmp_path / "seed_0_1"


def test_a_run_that_did_not_end_is_found_again(tmp_path, store):
    inputs, others = RunInputs({"seed": 0}, store), RunInputs({"seed": 1}, store)
    required = {"seed": 0, "fingerprint": "f", "tokenizer": "t", "corpus": "c"}
    provenance = {**required, "digest": inputs.digest, "inputs": inputs.content}
    begun = tmp_path / "seed_0_1"
    for folder, text in ((tmp_path / "seed_0", "{"), (begun, json.dumps(provenance))):
        folder.mkdir()
        (folder / PROVENANCE).write_text(text)
    assert place_for(tmp_path, 0, inputs) == begun
    assert place_for(tmp_path, 0, others) == tmp_path / "seed_0_2"
    (begun / "summary.json").write_text("{}")
    assert place_for(tmp_path, 0, inputs) == begun  # its last checkpoint is missing
    save(begun / FINAL_CHECKPOINT, 3)
    assert place_for(tmp_path, 0, inputs) == tmp_path / "seed_0_2"


def test_an_opened_run_resumes_from_its_newest_sound_checkpoint(tmp_path):
    folder, checkpoints = tmp_path / "seed_0", tmp_path / "seed_0" / CHECKPOINTS
    with open_run(folder, steps=10) as checkpoint:
        assert checkpoint is None
        with pytest.raises(UserError, match="is running this"), open_run(folder, steps=10):
            pass
    older, newer = save(checkpoints / "step=4.ckpt", 4), save(checkpoints / "step=8.ckpt", 8)
    half = newer.with_name(newer.name + PARTIAL)
    half.write_bytes(b"half")
    with open_run(folder, steps=10) as checkpoint:
        assert checkpoint == newer
        assert not half.exists()
    with open_run(folder, steps=8) as checkpoint:
        assert checkpoint == older
    check_resumable(folder, 10)
    with pytest.raises(UserError, match=r"step=8\.ckpt: this run has done its 8 steps"):
        check_resumable(folder, 8)
    newer.write_bytes(newer.read_bytes()[:-9])
    with open_run(folder, steps=10) as checkpoint:
        assert checkpoint == older
    with pytest.raises(UserError, match="nothing to resume"):
        check_resumable(tmp_path / "elsewhere", 8)
    assert not (tmp_path / "elsewhere").exists()


def test_a_runs_folder_has_no_way_out(tmp_path):
    inside, outside = tmp_path / "seed_0", tmp_path / "elsewhere"
    (inside / "checkpoints").mkdir(parents=True)
    outside.mkdir()
    (inside / "latest").symlink_to("checkpoints")
    check_inside(inside)
    (inside / "reproduced").symlink_to(outside)
    with pytest.raises(UserError, match=r"reproduced: a link that leads out of the run's folder"):
        check_inside(inside)
