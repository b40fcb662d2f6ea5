"""Text that prints in every locale, and files that are UTF-8 in every locale."""

from __future__ import annotations

import codecs
import os
import sys
from typing import TextIO

UTF8_MODE = "PYTHONUTF8"
STREAMS = "PYTHONIOENCODING"
PLAIN = "dograph.plain"
"""Name of the error handler that spells out what an encoding lacks."""
SPELLINGS = {
    "−": "-",
    "–": "-",
    "—": "-",
    "─": "-",
    "━": "=",
    "…": "...",
    "±": "+-",
    "×": "x",
    "·": ".",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "→": "->",
    "∞": "inf",
    "’": "'",
    "“": '"',
    "”": '"',
}
"""What our texts say where the encoding lacks a character; others become ``\\xNN``."""


def _spell_out(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (char.encode("ascii", "backslashreplace").decode() for char in lacking)
    spelt = (SPELLINGS.get(char, escape) for char, escape in zip(lacking, escaped, strict=True))
    return "".join(spelt), error.end


codecs.register_error(PLAIN, _spell_out)


def print_everything() -> None:
    """Let stdout and stderr spell out characters that their encodings lack, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        # A notebook's stream, or a test's, may be none of a file; a closed one is None.
        if hasattr(stream, "reconfigure") and stream.errors != PLAIN:
            stream.reconfigure(errors=PLAIN)


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode, if the locale has another encoding.

    Names of files and the files of all libraries are then UTF-8, here and in all processes that it
    starts; what it prints stays in the locale's encoding. To be called first, by entry points only.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(UTF8_MODE) == "1":
        return
    os.environ.setdefault(STREAMS, encoding_of(sys.stdout))
    os.environ[UTF8_MODE] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def encoding_of(stream: TextIO | None) -> str:
    """A stream's encoding; UTF-8 without one."""
    return getattr(stream, "encoding", None) or "utf-8"
