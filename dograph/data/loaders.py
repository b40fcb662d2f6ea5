"""Loader processes, and an error that says what to do when one has died."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from dograph.data.batch import Batch
from dograph.errors import UserError, quoted_user_error

_DIED = re.compile(
    r"DataLoader worker \(pid.*\) (is killed by signal: [^.]*|exited unexpectedly)"
    r"|(Pin memory thread exited unexpectedly|Caught (?:Connection\w+|EOF)Error in pin memory)"
)


class WorkerDiedError(RuntimeError):
    """A loader process died before its batch was received."""


class PatientLoader(DataLoader[Batch]):
    """A DataLoader that reports a dead worker only when its batch is due.

    torch's own handler of SIGCHLD raises wherever the process happens to be, e.g. in a solve whose
    errors are caught, after which the run would continue with other weights.
    """

    def __iter__(self) -> Any:
        in_charge = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD)
        iterator = super().__iter__()
        if in_charge:
            signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
        return _watched(iterator) if self.num_workers else iterator


def _watched(iterator: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches; raise `WorkerDiedError` if the connection to a batch's process breaks."""
    try:
        yield from iterator
    except (OSError, EOFError) as error:
        # An error that a living worker raised is raised again here, without an errno.
        if str(error).startswith("Caught "):
            raise
        raise WorkerDiedError(f"its connection broke: {error}") from error


@contextmanager
def loader_errors(workers: int) -> Iterator[None]:
    """Turn torch's errors about ``workers`` loader processes into `UserError`s with a remedy.

    A `UserError` that a worker raised comes through without its traceback.
    """
    try:
        yield
    except UserError as error:
        message = quoted_user_error(str(error))
        if message is None:
            raise
        raise UserError(message) from error
    except RuntimeError as error:
        death = _DIED.search(str(error))
        if death is None and not isinstance(error, WorkerDiedError):
            raise
        how = str(error) if death is None else death[1] or death[2]
        raise UserError(
            f"one of data.workers={workers} loader processes has died ({how}), perhaps for "
            "lack of memory: free some, or lower data.workers, then run the same command again to "
            "resume from the newest checkpoint"
        ) from error
