"""Rows of JSON files: an object per line, one array of objects, or one object."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dograph.data.corpus.decompression import open_decompressed
from dograph.data.corpus.rows import BadRow, not_utf8, text_of
from dograph.errors import UserError

LONGEST_LINE = 256 * 2**20
"""Bytes of a JSON line, or of a file that is one JSON value: it is in memory as a whole."""
LONGEST_REASON = 300
"""Characters of a library's error that a message quotes."""
_PER_LINE = "write one JSON object per line"


def read_json_lines(path: Path, text_key: str) -> Iterator[str | BadRow]:
    """The texts of a file with one object per line; blank lines are skipped."""
    with open_decompressed(path) as file:
        for number, line in _lines(path, file):
            yield _text_of_line(line, text_key, f"{path}, line {number}")


def read_json(path: Path, text_key: str) -> Generator[str | BadRow]:
    """The texts of a ``.json`` file, which may have one object per line or be one JSON value.

    One array is its elements. A file that describes data instead of holding it, as an object
    without the key or an array of something else than objects do, is one `BadRow`.
    """
    with open_decompressed(path) as file:
        lines = _lines(path, file)
        number, first = next(lines, (0, b""))
        if not first:
            return
        if isinstance(_parsed(first), dict):
            second = next(lines, None)
            if second is not None:
                for place, line in itertools.chain([(number, first), second], lines):
                    yield _text_of_line(line, text_key, f"{path}, line {place}")
                return
            yield from _of_value(_parsed(first), text_key, path)
        else:
            yield from _of_value(_whole(path, first, file), text_key, path)


def starts_an_array(path: Path) -> bool:
    """Whether a JSON file is an array of objects, by its beginning: the whole may be large."""
    with open_decompressed(path) as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith(b"[") and start[1:].lstrip().startswith(b"{")


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each line that is not blank."""
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
        if len(line) == LONGEST_LINE:
            raise UserError(
                f"{path}, line {number}: longer than {LONGEST_LINE // 2**20} MiB: {_PER_LINE}"
            )
        if line.strip():
            yield number, line


def _text_of_line(line: bytes, text_key: str, where: str) -> str | BadRow:
    row = _parsed(line)
    if isinstance(row, UnicodeDecodeError):
        return not_utf8(where, row)
    if isinstance(row, Exception):
        return BadRow(where, f"not JSON ({_reason(row)})", _PER_LINE)
    return _text_of_row(row, text_key, where)


def _text_of_row(row: Any, text_key: str, where: str) -> str | BadRow:
    if not isinstance(row, dict):
        return BadRow(where, f"a {type(row).__name__}", "make each row a JSON object")
    return text_of(row, text_key, where)


def _of_value(value: Any, text_key: str, path: Path) -> Iterator[str | BadRow]:
    """The texts of a file that is one JSON value."""
    if isinstance(value, list) and (not value or isinstance(value[0], dict)):
        for number, row in enumerate(value, start=1):
            yield _text_of_row(row, text_key, f"{path}, element {number}")
        return
    text = _text_of_row(value, text_key, str(path))
    if isinstance(text, BadRow):
        text = BadRow(text.where, f"one JSON value: {text.problem}", text.remedy, is_file=True)
    yield text


def _whole(path: Path, first: bytes, file: BinaryIO) -> Any:
    """The value that the file is, given its first line that is not blank."""
    data = first + file.read(LONGEST_LINE - len(first))
    if len(data) == LONGEST_LINE:
        raise UserError(
            f"{path}: neither a JSON object per line, nor one JSON value of less than "
            f"{LONGEST_LINE // 2**20} MiB: {_PER_LINE}"
        )
    value = _parsed(data)
    if isinstance(value, Exception):
        raise UserError(
            f"{path}: neither a JSON object per line, nor one JSON value ({_reason(value)}): "
            f"{_PER_LINE}"
        )
    return value


def _parsed(data: bytes) -> Any:
    """The value of JSON in UTF-8, or the exception that says why there is none."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        return error


def _reason(error: Exception) -> str:
    return str(error)[:LONGEST_REASON]
