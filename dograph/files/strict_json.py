"""Folders and files that somebody else may have written, looked at before they are trusted."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST_JSON = 2**28
"""Bytes of a JSON file above which it is none of ours: a store of 100 terabytes stays below."""
LARGEST_COUNT = 2**60


def read_json_strictly(path: Path) -> Any:
    """The value of a JSON file, whoever wrote it.

    Raises:
        ValueError: if it is no plain file, too large, or not JSON; NaN and keys that are given
            twice are not JSON either.
        OSError: if it cannot be read.
    """
    return parse_strictly(read_plain(path))


def read_plain(path: Path) -> bytes:
    """The bytes of a small file; nothing is waited for, and no link is followed.

    Raises:
        ValueError: if it is no plain file or too large.
        OSError: if it cannot be read.
    """
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is no plain file")
    if state.st_size > LARGEST_JSON:
        raise ValueError(f"it has {state.st_size} bytes, more than {LARGEST_JSON}")
    return path.read_bytes()


def parse_strictly(data: bytes) -> Any:
    """The value of JSON text in UTF-8.

    Raises:
        ValueError: if it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_refuse
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def whole_number(value: Any, name: str, most: int = LARGEST_COUNT) -> int:
    """The value, if it is an integer of at least 0.

    Raises:
        ValueError: naming the key.
    """
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"'{name}' is {shown(value)}, not a whole number from 0 to {most}")
    return value


def with_keys(value: Any, keys: set[str], name: str) -> dict[str, Any]:
    """The value, if it is an object with exactly these keys.

    Raises:
        ValueError: naming the object.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}, not an object")
    if set(value) != keys:
        wrong = sorted(set(value) ^ keys)
        raise ValueError(f"{name} lacks, or should not have, {shown(wrong)}")
    return value


def shown(value: Any) -> str:
    """The value's beginning, on one line: an error that quotes a megabyte helps nobody."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # an integer of too many digits has no text
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:60] + "…"


def first_link(folder: Path, *, shared: bool = False) -> Path | None:
    """The first thing in a folder that is neither a plain file nor a folder, if there is one.

    Args:
        folder: looked through to the bottom; what it is itself does not matter.
        shared: whether a file with a second name (a hard link) counts too. What is written to it
            changes what is found under the other name.
    """
    for root, folders, files in os.walk(folder, onerror=_raise):
        for name in folders + files:
            path = Path(root, name)
            state = os.lstat(path)
            plain = stat.S_ISREG(state.st_mode) and not (shared and state.st_nlink > 1)
            if not plain and not stat.S_ISDIR(state.st_mode):
                return path
    return None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _raise(error: OSError) -> None:
    raise error
