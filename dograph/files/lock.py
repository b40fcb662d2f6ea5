"""Locks: one process at a time prepares a store, or trains in a run directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dograph.errors import UserError


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold a lock file; if another process holds it, call ``on_wait``, then wait.

    An ``on_wait`` that raises ends the waiting. Yields the descriptor: a process that inherits it
    holds the lock too, until it ends. The system frees the lock of a process that is killed.
    A link is refused: its target would be overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise UserError(f"{path} is a link: move it away")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        # The file stays: if it were deleted, two processes could lock two files of one name.
        yield descriptor
    finally:
        os.close(descriptor)


def holder(path: Path) -> str:
    """The process that holds a lock file, or held it last."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") or "another process"
    except OSError:
        return "another process"
