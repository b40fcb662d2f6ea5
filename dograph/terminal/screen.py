"""Rich's console, told what a pipe and a file can show."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from dograph.terminal.encoding import print_everything

UNLIMITED = 100_000
"""Columns of what is no terminal: its lines are cut nowhere."""


class Screen(Console):
    """A console that prints every character, and whole lines where there is no terminal.

    COLUMNS sets another width in both cases. If the reader of a pipe ends, the rest is not
    printed, and the command goes through all the same.

    Args:
        stderr: whether to print there instead of to stdout.
        quiet: whether to print nothing.
    """

    def __init__(self, stderr: bool = False, quiet: bool = False) -> None:
        print_everything()
        super().__init__(stderr=stderr, quiet=quiet)
        if not self.is_jupyter:
            given = _given_width()
            self._width = UNLIMITED if given is None and not has_terminal(self) else given

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        stream = sys.stderr if self.stderr else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _given_width() -> int | None:
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else None


def has_terminal(console: Console) -> bool:
    """Whether a console's stream is a terminal, whatever FORCE_COLOR says."""
    isatty = getattr(console.file, "isatty", None)
    try:
        return isatty is not None and bool(isatty())
    except ValueError:  # a closed stream
        return False


def is_live(console: Console) -> bool:
    """Whether a bar can move there: a notebook, or a terminal that is not dumb."""
    return console.is_jupyter or (has_terminal(console) and console.is_interactive)
