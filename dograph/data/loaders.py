"""Loader processes, and what it means that one has died."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from dograph.data.batch import Batch
from dograph.errors import UserError, told_elsewhere

_DIED = re.compile(
    r"DataLoader worker \(pid.*\) (is killed by signal: [^.]*|exited unexpectedly)"
    r"|(Pin memory thread exited unexpectedly|Caught (?:Connection\w+|EOF)Error in pin memory)"
)


class WorkerDiedError(RuntimeError):
    """A loader process died while its batch was fetched from it."""


class PatientLoader(DataLoader[Batch]):
    """A DataLoader that notices a dead worker once its batch is due.

    torch's own handler of SIGCHLD raises wherever the process happens to be, e.g. in a solve whose
    errors are caught, after which the run would go on by other weights.
    """

    def __iter__(self) -> Any:
        in_charge = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD)
        iterator = super().__iter__()
        if in_charge:
            signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
        return _watched(iterator) if self.num_workers else iterator


def _watched(iterator: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; a connection that breaks is told for what it is.

    Raises:
        WorkerDiedError: if the process that a batch is fetched from is gone.
    """
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (OSError, EOFError) as error:
            # What a living worker raised is raised here anew, without a number of the system.
            if str(error).startswith("Caught "):
                raise
            raise WorkerDiedError(f"its connection broke: {error}") from error
        yield batch


@contextmanager
def loader_errors(workers: int) -> Iterator[None]:
    """Turns torch's errors about loader processes into ones that say what to do.

    Args:
        workers: of this run.

    Raises:
        UserError: for one that died, with the remedy; for a user's mistake that one found, without
            its traceback.
    """
    try:
        yield
    except UserError as error:
        message = told_elsewhere(str(error))
        if message is None:
            raise
        raise UserError(message) from error
    except RuntimeError as error:
        found = _DIED.search(str(error))
        if found is None and not isinstance(error, WorkerDiedError):
            raise
        how = str(error) if found is None else found[1] or found[2]
        raise UserError(
            f"one of data.workers={workers} loader processes has died ({how}), perhaps for "
            "want of memory: free some, or lower data.workers, then give the same command again: "
            "it goes on from its newest checkpoint"
        ) from error
