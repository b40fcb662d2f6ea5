"""The text of one row, a JSON object or a Parquet row; rows without text are named, not raised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dograph.errors import UserError

MOST_KEYS, LONGEST_KEY = 20, 60
"""Limits of what a message quotes: keys, and characters of a key."""
_SKIP = "set corpus.skip_bad_rows=true to leave such rows out"


@dataclass(frozen=True)
class BadRow:
    """A row, or a whole file of JSON, that holds no text under ``corpus.text_key``."""

    where: str
    """Its file, and its line, element or row."""
    problem: str
    remedy: str
    """What to do if all rows are like this one."""
    is_file: bool = False
    """Whether it is a file that describes data instead of holding it; it is always left out."""

    def error(self, is_first: bool) -> UserError:
        """The error that names it; only a file's first row speaks for the others."""
        remedy = self.remedy if is_first else "fix this row"
        return UserError(f"{self.where}: {self.problem}: {remedy}, or {_SKIP}")


def text_of(row: Mapping[str, Any], text_key: str, where: str) -> str | BadRow:
    """Find the text under a key; ``content.text`` is the key ``text`` within ``content``.

    Bytes must be UTF-8. No value, as in ``null``, is an empty text. Line ends become newlines and a
    byte-order mark at the text's beginning is dropped, as in plain text.
    """
    try:
        value = _look_up(row, text_key)
    except KeyError:
        problem = f"no key '{text_key}'; it has {listed(sorted(row))}"
        return BadRow(where, problem, _other_key(row))
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            return not_utf8(where, error)
    if isinstance(value, str):
        return with_unix_line_ends(value.removeprefix("\ufeff"))
    problem = f"'{text_key}' is a {type(value).__name__}, not text"
    return BadRow(where, problem, _other_key(row))


def not_utf8(where: str, error: UnicodeDecodeError) -> BadRow:
    """A row whose bytes are not UTF-8."""
    return BadRow(where, f"not UTF-8 ({error.reason})", "convert the file to UTF-8")


def with_unix_line_ends(text: str) -> str:
    """The text with newlines for the line ends of Windows and of early Macs."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def listed(keys: Iterable[str]) -> str:
    """Keys of an untrusted file for a message, which they must not flood."""
    short = [key if len(key) <= LONGEST_KEY else f"{key[:LONGEST_KEY]}…" for key in keys]
    more = f" and {len(short) - MOST_KEYS} more" if len(short) > MOST_KEYS else ""
    return f"{short[:MOST_KEYS]}{more}"


def _look_up(row: Mapping[str, Any], key: str) -> Any:
    """The value under a key as it is written, else under its parts; a KeyError without one."""
    if key in row:
        return row[key]
    first, _, rest = key.partition(".")
    inner = row[first]
    if inner is None and rest:
        return None
    if not rest or not isinstance(inner, Mapping):
        raise KeyError(key)
    return _look_up(inner, rest)


def _other_key(row: Mapping[str, Any]) -> str:
    """The remedy for rows like this one: the keys that do hold text, also within objects."""
    keys = []
    for key, value in row.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        below = [(f"{key}.{name}", part) for name, part in inner]
        keys += [name for name, part in [(key, value), *below] if isinstance(part, str | bytes)]
    if not keys:
        return "write its text under a key of its own"
    return f"set corpus.text_key to one of {listed(sorted(keys))}"
