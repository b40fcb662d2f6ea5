"""The folder of a store in the making, which may be untrusted."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from dograph.data.corpus.manifest import is_digest
from dograph.data.corpus.store import work_dir_of
from dograph.data.corpus.tokenize_process import TokenisingFailedError
from dograph.data.corpus.tokenize_worker import CHUNK_BYTES
from dograph.errors import Refusal, UserError, file_errors
from dograph.files.atomic import write_json
from dograph.files.strict_json import first_link, read_json_strictly

INPUTS = "inputs.json"


def open_work_dir(store: Path, inputs: str) -> Path:
    """The folder to work in: an interrupted run's if it had the same inputs, else an empty one.

    ``inputs`` is the digest of what the store at ``store`` is made from. A folder that is not ours,
    or has links in it, is a UserError.
    """
    work_dir = work_dir_of(store)
    if work_dir.is_symlink() or work_dir.exists():
        _refuse_links(work_dir)
        if _inputs_of(work_dir) != inputs:
            shutil.rmtree(work_dir)
    write_json(work_dir / INPUTS, inputs)
    return work_dir


def _refuse_links(work_dir: Path) -> None:
    """Refuse a folder in which writing or deleting would reach files outside it."""
    is_folder = work_dir.is_dir() and not work_dir.is_symlink()
    link = first_link(work_dir, hard=True) if is_folder else work_dir
    if link is not None:
        raise UserError(
            f"{link} is a link or not a regular file: move {work_dir} away, or set corpus.store to "
            "another folder"
        )


def _inputs_of(work_dir: Path) -> str | None:
    """Digest of what an interrupted preparation was made from; None: the folder is empty."""
    if not any(work_dir.iterdir()):
        return None
    try:
        inputs = read_json_strictly(work_dir / INPUTS)
        if not isinstance(inputs, str) or not is_digest(inputs):
            raise ValueError("not a digest")  # a folder of somebody else's is never deleted
        return inputs
    except (OSError, ValueError) as error:
        raise UserError(
            f"{work_dir} is not an interrupted preparation ({INPUTS}: {error}): move it away, or "
            "set corpus.store to another folder"
        ) from error


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn refused file operations, of the store at ``path``, into an error with a remedy."""
    then = "prepare again: finished work is kept"
    try:
        with file_errors(path, "corpus.store", then):
            yield
    except TokenisingFailedError as error:
        # litdata loses a worker's error if only its last write failed.
        if shutil.disk_usage(path.parent).free >= CHUNK_BYTES:
            raise
        raise UserError(Refusal(errno.ENOSPC).message(path, "corpus.store", then)) from error
