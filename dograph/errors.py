"""Errors a user can fix: mistakes, refused file operations, lack of memory."""

from __future__ import annotations

import difflib
import errno
import operator
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class UserError(ValueError):
    """A mistake in a recipe, a corpus or a user's mixer; names the file, the key and the remedy.

    The command line prints it without a traceback and exits with code 2.
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
    """Refuse NaN and a number outside its range; ``key`` is the full name that a user can search.

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


def check_whole(key: str, value: int, *, at_least: int) -> None:
    """Refuse a number that is not whole, or below its bound.

    >>> check_whole("data.context", 12.5, at_least=1)
    Traceback (most recent call last):
    dograph.errors.UserError: data.context is 12.5: it must be a whole number
    """
    try:
        operator.index(value)
    except TypeError as error:
        raise UserError(f"{key} is {value!r}: it must be a whole number") from error
    check_range(key, value, at_least=at_least)


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices; ``key`` is the full name that a user can search.

    >>> check_choice("data.draw", "stratifed", ["stratified", "multinomial"])
    Traceback (most recent call last):
    dograph.errors.UserError: data.draw is 'stratifed': it must be stratified or multinomial
    """
    if value not in choices:
        raise UserError(f"{key} is {value!r}: it must be {' or '.join(choices)}")


def nearest(word: str, words: Sequence[str]) -> str:
    """A hint at the nearest spelling, or an empty string."""
    matches = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def quoted_user_error(traceback: str) -> str | None:
    """The message of the `UserError` that another process's traceback ends with; None without one.

    Loader workers and litdata's workers send errors as the text of their traceback.
    """
    _, mark, message = traceback.rpartition(f"\n{__name__}.{UserError.__name__}: ")
    return message.partition("\n")[0].strip() if mark else None


_USE_LOCKS = "use a file system with locks for runs and corpus.store"
_NUMBERS = {
    "free some space": (errno.ENOSPC, errno.EDQUOT),
    "use a file system that supports files this large": (errno.EFBIG,),
    "make its file system writable": (errno.EROFS,),
    "get permission for it": (errno.EACCES, errno.EPERM),
    "check its disk": (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT),
    "mount its file system again": (errno.ESTALE,),
    "put it back": (errno.ENOENT,),
    "move away the file that is where a folder should be": (errno.ENOTDIR,),
    "move away the folder that is where a file should be": (errno.EISDIR,),
    "move it away": (errno.EEXIST, errno.ENOTEMPTY),
    "end what uses it": (errno.EBUSY,),
    "fix its symbolic links, which form a loop": (errno.ELOOP,),
    "choose shorter names": (errno.ENAMETOOLONG,),
    _USE_LOCKS: (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP),
    "raise `ulimit -n`": (errno.EMFILE, errno.ENFILE),
}
REMEDIES = {number: remedy for remedy, numbers in _NUMBERS.items() for number in numbers}
"""What the user can do, by ``errno``; errors with another number are not the user's to fix."""
ELSEWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors that another place might not have."""
_SQLITE = {
    "disk is full": errno.ENOSPC,
    "readonly database": errno.EROFS,
    "unable to open database": errno.EACCES,
    "disk I/O error": errno.EIO,
}
_QUOTED = re.compile(r"(?:\[Errno|\(os error) (\d+)[\])](?: [^:\n]*: '([^'\n]*)')?")
"""A system error in the text of another process, in Python's or Rust's spelling."""


@dataclass(frozen=True)
class Refusal:
    """A file operation that the system refused."""

    number: int
    """The error's ``errno``, a key of ``REMEDIES``."""
    file: str | None = None
    """Name of the file, where the system gave it."""

    def message(self, place: Path | None, key: str | None, then: str) -> str:
        """File, or else ``place``; reason; remedy, or another place for the recipe key; then."""
        remedy = REMEDIES[self.number]
        if key is not None and self.number in ELSEWHERE:
            remedy += f" or set {key} to another place"
        where = self.file or (str(place) if place else "a file")
        return f"{where}: {os.strerror(self.number)}: {remedy}, then {then}"


def find_refusal(error: BaseException) -> Refusal | None:
    """What the system refused, if that is what caused the error; else None.

    Looks behind the errors in which torch, TensorBoard and Lightning wrap the system's, and into
    the text of other processes' errors. Errors of other kinds are never taken for the system's.
    """
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        file = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        return Refusal(error.errno, file) if error.errno in REMEDIES else None
    if isinstance(error, sqlite3.Error):
        numbers = (number for words, number in _SQLITE.items() if words in str(error))
        return next((Refusal(number) for number in numbers), None)
    # torch raises RuntimeErrors while it handles the system's, without `from`.
    context = error.__context__ if isinstance(error, RuntimeError) else None
    cause = error.__cause__ or context
    return (find_refusal(cause) if cause is not None else None) or _from_text(error)


def _from_text(error: BaseException) -> Refusal | None:
    if not isinstance(error, RuntimeError | OSError):
        return None
    quoted = [match for match in _QUOTED.finditer(str(error)) if int(match[1]) in REMEDIES]
    return Refusal(int(quoted[-1][1]), quoted[-1][2]) if quoted else None


@contextmanager
def file_errors(
    place: Path | None = None, key: str | None = None, then: str = "run the same command again"
) -> Iterator[None]:
    """Turn refused file operations into a ``UserError`` that names file, reason and remedy.

    Args:
        place: named if the system gives no file name.
        key: recipe key that sets the place.
        then: what to do after the remedy.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        refusal = find_refusal(error)
        if refusal is None:
            raise
        raise UserError(refusal.message(place, key, then)) from error


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a failed allocation into a ``UserError`` with the amount and the keys that decide it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        import torch

        is_allocation = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_allocation and "can't allocate memory" not in str(error):
            raise
        reason = f" ({str(error).strip().splitlines()[0]})" if str(error).strip() else ""
        raise UserError(
            f"out of memory{reason}: lower data.batch_size (trainer.accumulate_grad_batches keeps "
            "the global batch), data.context or model.config, then run the same command again"
        ) from error
