"""Checkpoints that are whole or refused."""

import logging
import os
import pickle
import random
import signal
import zipfile
from pathlib import Path

import pytest
import torch

from dograph.errors import UserError
from dograph.files.lock import exclusive
from dograph.files.run_dir import CHECKPOINTS
from dograph.training.checkpoint_reader import (
    content_digest,
    is_sound,
    load_model,
    newest_sound,
    read_checkpoint,
    steps_done,
)
from dograph.training.checkpoint_writer import (
    PARTIAL,
    AtomicCheckpoints,
    CheckpointSaver,
    restore_errors,
)


def save(path, step=3, size=1000):
    content = {"global_step": step, "state_dict": {"w": torch.arange(float(size))}}
    AtomicCheckpoints().save_checkpoint(content, path)
    return path


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    path = save(tmp_path / "checkpoints" / "a.ckpt")
    assert steps_done(path) == 3
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.arange(1000.0))
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]


def test_every_flipped_bit_that_changes_a_number_is_found(tmp_path):
    path = save(tmp_path / "a.ckpt")
    whole, draw = path.read_bytes(), random.Random(0)
    expected, found = read_checkpoint(path), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            content = read_checkpoint(path)
        except UserError as error:
            assert "a.ckpt" in str(error)
            found += 1
            continue
        # What is not found lies between the parts, and changes nothing.
        assert torch.equal(content["state_dict"]["w"], expected["state_dict"]["w"])
    assert found > 200


def test_a_truncated_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    older, newer = save(folder / "step=1.ckpt", 1), save(folder / "step=2.ckpt", 2)
    os.utime(newer, (1, 1))  # copied, or written before the clock was set back
    assert newest_sound(tmp_path) == newer
    assert newest_sound(tmp_path, below=2) == older
    newer.write_bytes(newer.read_bytes()[:-100])
    assert not is_sound(newer)
    with caplog.at_level(logging.WARNING):
        assert newest_sound(tmp_path) == older
    assert "step=2.ckpt is damaged" in caplog.text
    older.write_bytes(b"")
    with pytest.raises(UserError, match=r"step=2\.ckpt: damaged, and there is no whole checkpoint"):
        newest_sound(tmp_path)
    assert newest_sound(tmp_path / "elsewhere") is None


def test_code_in_a_checkpoint_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"global_step": 1, "x": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(UserError, match=r"trap\.ckpt: refused, since loading it would run code"):
        read_checkpoint(tmp_path / "trap.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"old\.ckpt: damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "old.ckpt")
    assert not (tmp_path / "trapped").exists()
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="no checkpoint of a language model"):
        read_checkpoint(tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    path = save(tmp_path / "a.ckpt", 1)
    (tmp_path / f"a.ckpt{PARTIAL}").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot be written: .*a\.ckpt: No space"):
        save(path, 2)
    assert steps_done(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_lock_is_dropped_by_a_process_that_dies(tmp_path):
    path = tmp_path / ".lock"
    child = os.fork()
    if not child:
        with exclusive(path, lambda: None):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    def refuse():
        raise AssertionError("still held")

    with exclusive(path, refuse):
        assert f"process {os.getpid()}" in path.read_text()


def test_sharded_checkpoints_count_by_their_names(tmp_path):
    for step in (20, 100):
        (tmp_path / CHECKPOINTS / f"step={step}.ckpt").mkdir(parents=True)
    assert newest_sound(tmp_path).name == "step=100.ckpt"
    assert newest_sound(tmp_path, below=100).name == "step=20.ckpt"
    assert steps_done(tmp_path / CHECKPOINTS / "step=20.ckpt") == 20
    with pytest.raises(UserError, match="sharded checkpoint; make one file of it"):
        read_checkpoint(tmp_path / CHECKPOINTS / "step=20.ckpt")


def test_a_checkpoint_that_could_expand_without_end_is_none(tmp_path):
    path = save(tmp_path / "a.ckpt", 1)
    with zipfile.ZipFile(path) as whole:
        parts = {part.filename: whole.read(part) for part in whole.infolist()}
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_DEFLATED) as squeezed:
        for name, content in parts.items():
            squeezed.writestr(name, content)
    assert is_sound(path)
    assert not is_sound(tmp_path / "b.ckpt")


def test_what_befalls_a_resumed_run_is_told_as_that(tmp_path):
    saver, path = CheckpointSaver(tmp_path, 1, 1.0, 1), tmp_path / "step=1.ckpt"

    def raised(error, cause=None, checkpoint=path):
        kind = type(error) if checkpoint is None else UserError
        with pytest.raises(kind) as caught, restore_errors(checkpoint, saver):
            raise error from cause
        return str(caught.value)

    assert f"{path}: cannot be resumed (KeyError: 'x')" in raised(KeyError("x"))
    assert raised(UserError("no room"), OSError(28, "full")) == "no room"
    assert raised(UserError("other data")) == f"{path}: other data"
    assert "x" in raised(KeyError("x"), checkpoint=None)


def test_a_checkpoint_does_not_say_what_builds_its_model(tmp_path):
    content = {"global_step": 1, "state_dict": {}, "hyper_parameters": {}}
    content["hyper_parameters"]["_instantiator"] = "os.system"
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt: refused, since it names what should build"):
        load_model(tmp_path / "a.ckpt")


def test_a_content_s_digest_is_of_the_content_alone(tmp_path):
    paths = [save(tmp_path / f"{name}.ckpt") for name in "ab"]
    first, again = map(content_digest, paths)
    assert first == again is not None
    assert content_digest(save(tmp_path / "later.ckpt", step=4)) != first
    torch.save({"global_step": 3, "state_dict": {"w": torch.arange(1000.0) + 1}}, paths[1])
    assert content_digest(paths[1]) != first
    paths[0].write_bytes(b"no archive")
    assert [content_digest(path) for path in (paths[0], tmp_path, tmp_path / "none")] == [None] * 3
