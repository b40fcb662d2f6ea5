"""What it means that a loader process has died."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from dograph.errors import UserError

_DIED = re.compile(r"DataLoader worker \(pid.*?\) (is killed by signal: [^.]*|exited unexpectedly)")


@contextmanager
def loader_errors(workers: int) -> Iterator[None]:
    """Turns torch's error about a loader process that died into one that says what to do.

    Args:
        workers: of this run.

    Raises:
        UserError: with the remedy.
    """
    try:
        yield
    except RuntimeError as error:
        found = _DIED.search(str(error))
        if found is None:
            raise
        raise UserError(
            f"one of data.workers={workers} loader processes has died ({found[1]}), perhaps for "
            "want of memory: free some, or lower data.workers, then give the same command again: "
            "it goes on from the newest checkpoint"
        ) from error
