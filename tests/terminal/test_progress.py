"""Lines of progress where no bar can move."""

import io
import os
import pty

import pytest
from rich.console import Console

from dograph.terminal.progress import Pace, ProgressLines, duration, progress_of
from dograph.terminal.screen import UNLIMITED, Screen, is_live


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self):
        return self.now


def test_the_first_line_comes_soon_and_then_one_every_half_minute():
    clock = Clock()
    pace, due = Pace(clock), []
    for second in range(100):
        clock.now = 100.0 + second
        if pace.due():
            due.append(second)
    assert due == [3, 33, 63, 93]


def test_lines_say_how_far_it_is_and_how_long_the_rest_takes():
    clock, text = Clock(), io.StringIO()
    lines = ProgressLines(
        Console(file=text, width=200), "stage", 100, lambda n: f"{n:.0f} MB", Pace(clock)
    )
    lines.advance(5)
    clock.now += 40
    lines.advance(20)
    clock.now += 1
    lines.advance(1)
    assert text.getvalue().splitlines() == [
        "stage: 100 MB",
        "stage: 25 MB of 100 MB after 0:40, 2:00 left",
    ]


def test_work_without_a_known_end_has_lines_too():
    clock, text = Clock(), io.StringIO()
    lines = ProgressLines(Console(file=text), "derive", None, str, Pace(clock))
    clock.now += 4
    lines.advance(2)
    assert text.getvalue().splitlines() == ["derive: begins", "derive: 2.0 after 0:04"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (11100, "3:05:00")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def terminal(monkeypatch):
    """A stream to a terminal."""
    reader, writer = pty.openpty()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    yield stream
    stream.close()
    os.close(reader)


def test_a_bar_moves_in_a_terminal_only(terminal, monkeypatch):
    monkeypatch.setattr("sys.stdout", terminal)
    assert is_live(Screen())
    monkeypatch.setenv("NO_COLOR", "1")
    assert is_live(Screen())
    monkeypatch.setenv("TERM", "dumb")
    assert not is_live(Screen())


def test_none_moves_in_a_file_even_if_colours_are_forced(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    for name in ("CI", "FORCE_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.setenv(name, "1")
    assert not is_live(Screen())


@pytest.mark.parametrize(
    ("columns", "width"),
    [(None, UNLIMITED), ("40", 40), ("0", UNLIMITED), ("", UNLIMITED), ("wide", UNLIMITED)],
)
def test_a_pipe_is_as_wide_as_its_lines_unless_columns_says_otherwise(monkeypatch, columns, width):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert Screen().width == width


def test_work_is_counted_without_a_screen_too():
    with progress_of(None, "validation", 3, "sequences") as advance:
        advance(3)
    text = io.StringIO()
    with progress_of(Console(file=text), "validation", 3000, "sequences") as advance:
        advance(3)
    assert text.getvalue() == "validation: 3,000 sequences\n"
