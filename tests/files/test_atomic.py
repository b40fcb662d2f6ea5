"""Files are whole or absent; what was there before a failure stays."""

import errno
import os
import stat

import pytest
from full_files import room_for

from dograph.files.atomic import remove_unfinished, write_files, write_output, write_text


@pytest.mark.parametrize("write", [write_text, write_output])
def test_a_file_that_does_not_fit_leaves_the_earlier_one(tmp_path, write):
    path = tmp_path / "weights.yaml"
    write(path, "web: 1.0\n")
    with room_for(100), pytest.raises(OSError, match=str(path)) as raised:
        write(path, "x" * 1000)
    assert raised.value.errno == errno.EFBIG
    assert path.read_text() == "web: 1.0\n"
    assert list(tmp_path.iterdir()) == [path]


def test_of_several_files_none_takes_its_place_before_all_are_written(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    write_files({small: b"old", large: b"old"})
    with room_for(100), pytest.raises(OSError, match="large"):
        write_files({small: b"new", large: b"x" * 1000})
    assert (small.read_bytes(), large.read_bytes()) == (b"old", b"old")
    assert set(tmp_path.iterdir()) == {small, large}


def test_files_of_the_user_beside_it_stay(tmp_path):
    path, users = tmp_path / "weights.yaml", tmp_path / "weights.yaml.new"
    users.write_text("mine")
    write_text(path, "Übung: 1.0\n")
    assert path.read_text(encoding="utf-8") == "Übung: 1.0\n"
    assert users.read_text() == "mine"


def test_permissions_stay(tmp_path):
    path = tmp_path / "weights.yaml"
    write_text(path, "old")
    path.chmod(0o640)
    write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == "new"


def test_a_link_of_a_folder_is_replaced_and_a_link_that_the_user_named_is_followed(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_output(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    write_text(link, "newer")
    assert not link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_and_a_device_are_written_to_and_stay(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_output(pipe, "weights")
    assert os.read(reader, 100) == b"weights"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    write_output(null, "weights")
    assert null.is_symlink()


def test_only_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".0123456789abcdef.new").write_text("half")
    others = [tmp_path / name for name in ("mine.new", ".mine.new", ".0123.new")]
    for path in others:
        path.write_text("mine")
    remove_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == set(others)
