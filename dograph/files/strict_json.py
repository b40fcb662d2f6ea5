"""Untrusted folders and JSON files, checked before they are used."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST_JSON = 2**28
"""Bytes; a store of 100 terabytes has smaller JSON files."""


def read_json_strictly(path: Path) -> Any:
    """The value of an untrusted JSON file; a ValueError for invalid JSON, NaN and repeated keys."""
    return parse_strictly(read_regular(path))


def read_regular(path: Path) -> bytes:
    """The bytes of a small regular file; follows no link and never waits, as on a pipe.

    Raises:
        ValueError: if it is not a regular file, or too large.
    """
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is not a regular file")
    if state.st_size > LARGEST_JSON:
        raise ValueError(f"it has {state.st_size} bytes, more than {LARGEST_JSON}")
    return path.read_bytes()


def parse_strictly(data: bytes) -> Any:
    """The value of JSON text in UTF-8; a ValueError if it is invalid, or nested too deeply."""
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def shown(value: Any) -> str:
    """The beginning of a value, on one line, for a message."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # an integer of too many digits has no text
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:60] + "…"


def first_link(folder: Path, *, hard: bool = False) -> Path | None:
    """The first path in a folder that is neither a regular file nor a folder; None without one.

    The folder may itself be a link. ``hard`` links count too where files are written: writing to
    one changes the file under its other name.
    """
    for root, folders, files in os.walk(folder, onerror=_raise):
        for name in folders + files:
            path = Path(root, name)
            state = os.lstat(path)
            regular = stat.S_ISREG(state.st_mode) and not (hard and state.st_nlink > 1)
            if not regular and not stat.S_ISDIR(state.st_mode):
                return path
    return None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("it has a key twice in one object")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is invalid JSON")


def _raise(error: OSError) -> None:
    raise error
