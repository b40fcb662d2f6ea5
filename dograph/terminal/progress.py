"""How far work is: a moving bar in a terminal, a line now and then in a pipe or a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dograph.terminal.screen import is_live

FIRST = 3.0
"""Seconds until the first line after the beginning."""
EVERY = 30.0
"""Seconds between two later lines."""


class Pace:
    """Says when a line is due: the first soon after the beginning, then one every half minute.

    Args:
        clock: gives seconds.
        every: seconds between two lines. None: half a minute.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, every: float | None = None
    ) -> None:
        self._clock = clock
        self._every = EVERY if every is None else every
        self._began = clock()
        self._due = self._began + min(FIRST, self._every)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def due(self) -> bool:
        """Whether it is time; if so, the next line is due after the interval."""
        if self._clock() < self._due:
            return False
        self._due = self._clock() + self._every
        return True


class ProgressLines:
    """Lines about one piece of work, the first at its beginning.

    Args:
        console: where they are printed.
        name: what is done.
        total: how much of it there is; None if nobody knows.
        amount: how a part of the total is written.
        pace: when a line is due.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        total: float | None,
        amount: Callable[[float], str],
        pace: Pace | None = None,
    ) -> None:
        self._console, self._name, self._total, self._amount = console, name, total, amount
        self._pace = pace or Pace()
        self._done = 0.0
        print_line(console, f"{name}: {'begins' if total is None else amount(total)}")

    def advance(self, done: float) -> None:
        """Count what was done, and print a line if one is due."""
        self._done += done
        if self._pace.due():
            print_line(self._console, self._line())

    def _line(self) -> str:
        seconds, shown = self._pace.seconds, self._amount(self._done)
        if not self._total:
            return f"{self._name}: {shown} after {duration(seconds)}"
        total, left = self._amount(self._total), time_left(self._done, self._total, seconds)
        return f"{self._name}: {shown} of {total} after {duration(seconds)}, {left}"


@contextmanager
def progress_of(
    console: Console | None, name: str, total: int, unit: str
) -> Iterator[Callable[[int], None]]:
    """Show how far countable work is; yields a function to call with how much more is done.

    Args:
        console: where it is shown. None: nowhere.
        name: what is done.
        total: how many there are.
        unit: their name, in the plural.
    """
    if console is None:
        yield lambda done: None
    elif not is_live(console):
        yield ProgressLines(console, name, total, lambda count: f"{count:,.0f} {unit}").advance
    else:
        texts, bar = (TextColumn(name), TextColumn(unit)), BarColumn()
        columns = (texts[0], bar, MofNCompleteColumn(), texts[1], TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda done: progress.advance(task, done)


def print_line(console: Console, text: str) -> None:
    """Print one line as it is, at once."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def time_left(done: float, total: float, seconds: float) -> str:
    """Estimate of the rest from what took ``seconds``, e.g. "1:20 left".

    Without one until a hundredth is done: starting takes time that the rest does not.
    """
    if done < total / 100 or done <= 0:
        return "? left"
    return f"{duration(seconds * (total - done) / done)} left"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: "0:07", "12:30", "3:05:00"."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
