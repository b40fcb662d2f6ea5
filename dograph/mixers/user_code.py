"""Errors in the code of a user's mixer, told with its name, method, step and line."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary

import torch
from torch import nn

from dograph.errors import UserError
from dograph.mixers.outside_state import own_functions
from dograph.signals.batch_signals import REQUESTED_BY

INSTALLED = ("site-packages", "dist-packages")
NOT_THEIRS = (MemoryError, torch.OutOfMemoryError, UserError)
"""Errors that are raised in a mixer's code without its fault, or that say enough."""


@contextmanager
def mixer_errors(
    mixer: nn.Module | type[nn.Module], when: str | Callable[[], str] = "before training"
) -> Iterator[None]:
    """Turns an error in a user's mixer into a UserError with the mixer's own line.

    Errors that do not come from the mixer's code pass unchanged.

    Args:
        mixer: or its class.
        when: words for when this is, or what tells them once there is an error.
    """
    try:
        yield
    except NOT_THEIRS:
        raise
    except (Exception, SystemExit) as error:
        kind = mixer if isinstance(mixer, type) else type(mixer)
        place = _place(kind, error)
        if place is None or _of_the_system(error):
            raise
        moment = when() if callable(when) else when
        raise UserError(_message(kind, place, error, moment)) from error


def line_of(error: BaseException, files: set[str]) -> FrameSummary | None:
    """The innermost line that an error passed in some files or beside them; None without one."""
    frames = traceback.extract_tb(error.__traceback__)
    if not any(frame.filename in files for frame in frames):
        return None
    folders = {Path(file).parent for file in files if Path(file).is_absolute()}
    theirs = [
        frame
        for frame in frames
        if frame.filename in files or any(_lies_in(frame.filename, each) for each in folders)
    ]
    return theirs[-1]


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _lies_in(file: str, folder: Path) -> bool:
    path = Path(file)
    if not path.is_relative_to(folder):
        return False
    return not any(part in INSTALLED for part in path.relative_to(folder).parts)


def _place(kind: type, error: BaseException) -> tuple[str, FrameSummary] | None:
    """The mixer's method that was called and the line that failed; None if it is not its code."""
    functions = own_functions(kind)
    files = {function.__code__.co_filename for function in functions.values()}
    line = line_of(error, files)
    if line is not None:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame.name for frame in frames if frame.filename in files]
        return next((name for name in theirs if name in functions), theirs[0]), line
    for name, function in functions.items():  # called with arguments that it does not take
        if isinstance(error, TypeError) and f"{name}()" in str(error):
            code = function.__code__
            return name, FrameSummary(code.co_filename, code.co_firstlineno, name)
    return None


def _message(kind: type, place: tuple[str, FrameSummary], error: BaseException, when: str) -> str:
    method, line = place
    quoted = f" in `{line.line}`" if line.line else ""
    return (
        f"{line.filename}:{line.lineno}: {kind.__name__}.{method} fails {when}{quoted} "
        f"({first_line(error)}): {_remedy(line.line or '', error)}"
    )


def _remedy(line: str, error: BaseException) -> str:
    """What may help: a signal that nobody asked for is None."""
    if isinstance(error, AttributeError | TypeError) and "NoneType" in str(error):
        for signal, request in REQUESTED_BY.items():
            if f".{signal}" in line:
                return f"signals.{signal} is None unless the mixer's needs hold {request}"
    return "correct that line, then run the same command again"


def _of_the_system(error: BaseException) -> bool:
    """Whether torch only happened to raise an error while the mixer worked."""
    passing = ("can't allocate memory", "DataLoader worker", "out of memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in passing)
