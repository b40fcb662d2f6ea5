"""Which errors are the system's, and which stay what they are."""

import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from dograph.data.loaders import WorkerDiedError, loader_errors
from dograph.errors import REMEDIES, UserError, file_errors
from dograph.experiments.run import quieten

PLACE = Path("/data/runs")


def message(error, **behind):
    """The message of the UserError that it becomes."""
    with pytest.raises(UserError) as caught, file_errors(PLACE, "runs"):
        _raise(error, **behind)
    return str(caught.value)


def _raise(error, cause=None, context=None):
    if context is None:
        raise error from cause
    try:
        raise context
    except OSError:
        raise error  # noqa: B904


def system(number, name=None):
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize("number", REMEDIES)
def test_every_refusal_names_file_reason_and_remedy(number):
    text = message(system(number, "/data/x"))
    assert text.startswith(f"/data/x: {os.strerror(number)}: {REMEDIES[number]}")
    assert text.endswith(", then run the same command again")
    assert message(system(number)).startswith("/data/runs: ")


@pytest.mark.parametrize(
    ("error", "behind"),
    [
        (RuntimeError("torch could not write"), {"context": system(errno.ENOSPC)}),
        (RuntimeError("wrapped"), {"cause": system(errno.ENOSPC)}),
        (ValueError("you tried to log 1.0"), {"cause": system(errno.ENOSPC)}),
        (sqlite3.OperationalError("database or disk is full"), {}),
        (RuntimeError("worker: OSError: [Errno 28] No space left on device"), {}),
        (RuntimeError("Exception: No space left on device (os error 28)"), {}),
        (OSError("Caught OSError in worker\n[Errno 28] No space left: '/data/y'"), {}),
    ],
)
def test_it_is_found_behind_what_wraps_it(error, behind):
    assert "No space left on device: free some space or set runs to" in message(error, **behind)


@pytest.mark.parametrize(
    ("error", "behind"),
    [
        (KeyError("a mistake of ours"), {"context": system(errno.ENOENT)}),
        (ValueError("a mistake of ours"), {"context": system(errno.ENOENT)}),
        (RuntimeError("size mismatch"), {}),
        (OSError("without a number"), {}),
        (BrokenPipeError(errno.EPIPE, "the reader left"), {}),
        (UserError("reported already"), {"cause": system(errno.ENOSPC)}),
        (sqlite3.OperationalError("no such table"), {}),
    ],
)
def test_other_errors_stay_what_they_are(error, behind):
    with pytest.raises(type(error)) as caught, file_errors(PLACE):
        _raise(error, **behind)
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
        RuntimeError("Caught ConnectionResetError in pin memory thread for device 0."),
        WorkerDiedError("its connection broke"),
    ],
)
def test_a_dead_loader_process_is_told_in_all_its_words(error):
    died = r"data\.workers=2 loader processes has died \(.+\), perhaps"
    with pytest.raises(UserError, match=died), loader_errors(2):
        raise error
    with pytest.raises(RuntimeError, match="size"), loader_errors(2):
        raise RuntimeError("size mismatch")


def test_threads_errors_are_printed_but_for_what_is_raised_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    quieten()

    def fail():
        raise OSError("of a thread")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert "of a thread" in capsys.readouterr().err
