"""What a user can fix: mistakes, and what file systems and memory refuse, in our words."""

from __future__ import annotations

import errno
import operator
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class UserError(ValueError):
    """A mistake in a recipe, a corpus or a user's mixer.

    The message names the file, the key and the remedy. The command line prints it without a
    traceback and exits with code 2; library users see an ordinary ``ValueError``.
    """


def check_range(
    key: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a number outside its range, and NaN.

    Args:
        key: full name that a user can search for, such as ``data.context``.
        value: number to check.
        at_least: smallest allowed value.
        above: bound that the value must exceed.
        at_most: largest allowed value.
        below: bound that the value must stay under.

    Raises:
        UserError: naming key, value and range.

    >>> check_range("data.context", 0, at_least=1)
    Traceback (most recent call last):
    dograph.errors.UserError: data.context is 0: it must be ≥ 1
    """
    bounds = (
        ("≥", operator.ge, at_least),
        (">", operator.gt, above),
        ("≤", operator.le, at_most),
        ("<", operator.lt, below),
    )
    given = [(sign, holds, bound) for sign, holds, bound in bounds if bound is not None]
    if not all(holds(value, bound) for _, holds, bound in given):
        allowed = " and ".join(f"{sign} {bound}" for sign, _, bound in given)
        raise UserError(f"{key} is {value}: it must be {allowed}")


def told_elsewhere(traceback: str) -> str | None:
    """The message of the `UserError` that another process's traceback ends with.

    Loader workers and litdata's hand on errors as the text of their traceback.

    Args:
        traceback: the text, or any other.

    Returns:
        the message, or None if the text is no such traceback.
    """
    _, mark, message = traceback.rpartition(f"\n{__name__}.{UserError.__name__}: ")
    return message.partition("\n")[0].strip() if mark else None


_ROOM, _RIGHT, _DISK = "free some space", "give yourself the right to it", "look after its disk"
_LOCKS = "use a file system that has locks, for runs and corpus.store"
REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "use a file system that takes files so large",
    errno.EROFS: "make its file system writable",
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EIO: _DISK,
    errno.ENXIO: _DISK,
    errno.ENODEV: _DISK,
    errno.ESTALE: "mount its file system again",
    errno.ENOENT: "put it back",
    errno.ENOTDIR: "move away the file that is in the place of a folder",
    errno.EISDIR: "move away the folder that is in the place of a file",
    errno.EEXIST: "move it away",
    errno.ENOTEMPTY: "move it away",
    errno.EBUSY: "end what uses it",
    errno.ELOOP: "mend its symbolic links, which lead in a circle",
    errno.ENAMETOOLONG: "choose shorter names",
    errno.ENOLCK: _LOCKS,
    errno.ENOSYS: _LOCKS,
    errno.EOPNOTSUPP: _LOCKS,
    errno.ETIMEDOUT: _DISK,
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "raise `ulimit -n`",
}
"""What the user can do, by the system's number of an error; other numbers are no mistake of his."""
ELSEWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors that another place would not have."""
_SQLITE = {
    "disk is full": errno.ENOSPC,
    "readonly database": errno.EROFS,
    "unable to open database": errno.EACCES,
    "disk I/O error": errno.EIO,
}
_QUOTED = re.compile(r"(?:\[Errno|\(os error) (\d+)[\])](?: [^:\n]*: '([^'\n]*)')?")
"""A system's error in the words of another process, in Python or in Rust."""


@dataclass(frozen=True)
class Refusal:
    """What the system refused.

    Attributes:
        number: its ``errno``, among ``REMEDIES``.
        file: the file's name, where the system told it.
    """

    number: int
    file: str | None = None

    def told(self, place: Path | None, key: str | None, then: str) -> str:
        """The message: file, reason, remedy.

        Args:
            place: stands for a file whose name is not known.
            key: of the recipe, that could name another place.
            then: what comes after the remedy.
        """
        remedy = REMEDIES[self.number]
        if key is not None and self.number in ELSEWHERE:
            remedy += f" or set {key} to another place"
        where = self.file or (str(place) if place else "a file")
        return f"{where}: {os.strerror(self.number)}; {remedy}, then {then}"


def refusal(error: BaseException) -> Refusal | None:
    """What the system refused behind an error; None where that is not what it is about.

    Looks behind errors by which torch, TensorBoard and Lightning wrap the system's, and into the
    words of other processes; an error of any other kind is never taken for the system's.
    """
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        file = os.fsdecode(name) if isinstance(name, str | bytes) else None
        return Refusal(error.errno, file) if error.errno in REMEDIES else None
    if isinstance(error, sqlite3.Error):
        numbers = (number for words, number in _SQLITE.items() if words in str(error))
        return next((Refusal(number) for number in numbers), None)
    if isinstance(error, UserError):
        return None
    wraps = isinstance(error, RuntimeError)
    behind = error.__cause__ or (error.__context__ if wraps else None)
    found = refusal(behind) if behind is not None else None
    return found or (_quoted(str(error)) if wraps or isinstance(error, OSError) else None)


def _quoted(text: str) -> Refusal | None:
    found = [match for match in _QUOTED.finditer(text) if int(match[1]) in REMEDIES]
    return Refusal(int(found[-1][1]), found[-1][2]) if found else None


@contextmanager
def file_errors(
    place: Path | None = None,
    key: str | None = None,
    then: str = "give the same command again",
) -> Iterator[None]:
    """Turns what the system refuses about files into a ``UserError``.

    Args:
        place: stands for a file whose name the system does not tell.
        key: of the recipe, that could name another place.
        then: what to do after the remedy.

    Raises:
        UserError: naming file, reason and remedy.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        found = refusal(error)
        if found is None:
            raise
        raise UserError(found.told(place, key, then)) from error


_OF_TORCH = "can't allocate memory"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns an allocation that failed, on the CPU or a GPU, into an error that says what to do.

    Raises:
        UserError: with how much was asked for, and the keys that decide it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        import torch

        allocation = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not allocation and _OF_TORCH not in str(error):
            raise
        how = f" ({str(error).strip().splitlines()[0]})" if str(error).strip() else ""
        raise UserError(
            f"memory does not suffice{how}: lower "
            "data.batch_size (trainer.accumulate_grad_batches keeps the global batch), "
            "data.context or model.config, then give the same command again"
        ) from error
