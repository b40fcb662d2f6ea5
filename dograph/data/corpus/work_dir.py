"""The folder of a store in the making, which somebody else may have put there."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from dograph.data.corpus.dedup import start_again
from dograph.data.corpus.store import PARTIAL
from dograph.data.corpus.tokenize_process import PackingFailedError
from dograph.data.corpus.tokenize_worker import CHUNK_BYTES
from dograph.errors import Refusal, UserError, file_errors
from dograph.files.atomic import write_json
from dograph.files.strict_json import first_link, read_json_strictly

INPUTS = "inputs.json"


def claim_partial(path: Path, inputs: str) -> Path:
    """The folder to work in: an interrupted run's if it had the same inputs, else an empty one.

    Args:
        path: of the store to be made.
        inputs: digest of what it is made from.

    Raises:
        UserError: if the folder is none of ours, or has links in it.
    """
    partial = path.with_name(path.name + PARTIAL)
    if partial.is_symlink() or partial.exists():
        _check_partial(partial)
        if _inputs_of(partial) != inputs:
            shutil.rmtree(partial)
    write_json(partial / INPUTS, inputs)
    return partial


def _check_partial(partial: Path) -> None:
    """Refuse a folder in which writing or deleting would reach what lies outside it."""
    is_folder = partial.is_dir() and not partial.is_symlink()
    link = first_link(partial, shared=True) if is_folder else partial
    if link is not None:
        raise UserError(
            f"{link} is a link or no plain file: none of ours; move {partial} away, or set "
            "corpus.store to another folder."
        )


def _inputs_of(partial: Path) -> str | None:
    """Digest of what an interrupted preparation was made from; None: the folder is empty."""
    if not any(partial.iterdir()):
        return None
    try:
        inputs = read_json_strictly(partial / INPUTS)
        if isinstance(inputs, str):
            return inputs
        why = "no text"
    except (OSError, ValueError) as error:
        why = str(error)
    raise UserError(
        f"{partial} is not an interrupted preparation of ours ({INPUTS}: {why}); move it away, or "
        "set corpus.store to another folder."
    )


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses, wherever it shows, into an error that says what to do.

    Args:
        path: of the store.

    Raises:
        UserError: naming the file and the remedy.
    """
    then = "prepare again: what is finished is kept"
    try:
        with file_errors(path, "corpus.store", then), _foreign_files(path):
            yield
    except PackingFailedError as error:
        # litdata loses a worker's error if only its last write failed.
        if shutil.disk_usage(path.parent).free >= CHUNK_BYTES:
            raise
        raise UserError(Refusal(errno.ENOSPC).message(path, "corpus.store", then)) from error


@contextlib.contextmanager
def _foreign_files(path: Path) -> Iterator[None]:
    """Turn a file or folder of another kind in a store in the making into a clear error."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        partial = path.with_name(path.name + PARTIAL)
        if str(partial) not in str(error.filename):
            raise
        raise UserError(f"{error.filename}: {error.strerror}; {start_again(partial)}") from error
