"""Documents from files of JSON, Parquet and plain text, compressed or not, as streams."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dograph.data.corpus.decompression import (
    COMPRESSIONS,
    check_ratio,
    decompression_errors,
    open_decompressed,
)
from dograph.data.corpus.document import cut_stream
from dograph.data.corpus.json_rows import (
    LONGEST_REASON,
    read_json,
    read_json_lines,
    starts_an_array,
)
from dograph.data.corpus.rows import BadRow, listed, not_utf8, text_of
from dograph.errors import UserError, file_errors

JSON = (".json",)
JSON_LINES = (".jsonl", ".ndjson")
TEXT = (".txt", ".md")
PARQUET = (".parquet",)
KNOWN_ENDINGS = (
    f"{', '.join(JSON_LINES + JSON + TEXT)}, each also with {', '.join(COMPRESSIONS)}; "
    f"{', '.join(PARQUET)}"
)
"""The endings that are read, for messages."""
ROWS = 16
"""Rows of a Parquet file read at once: each may be many megabytes long."""
MOST_NULS = 0.1
"""Share of NUL characters that a block of plain text may hold."""


def readable_stem(name: str) -> str | None:
    """A file's name without the endings of its format, in any case; None for unknown endings."""
    uncompressed = _without(name, COMPRESSIONS)
    if uncompressed is not None:
        return _without(uncompressed, JSON_LINES + JSON + TEXT)
    return _without(name, JSON_LINES + JSON + TEXT + PARQUET)


def read_documents(
    path: Path, text_key: str, skip_bad_rows: bool = False
) -> Iterator[str | BadRow]:
    """Yield the documents of one file, in order.

    A JSON object or a Parquet row is a document, with its text in the key or column ``text_key``;
    plain text is cut at blank lines into documents of at most 64,000 characters. Line ends become
    newlines, and a byte-order mark is dropped. What is left out is yielded as a `BadRow`: a JSON
    file that only describes data, and rows without text if ``skip_bad_rows``.

    Raises:
        UserError: naming file, line and remedy, if the file is damaged, has a row without text,
            grows out of all proportion when it is decompressed, or is not a regular file.
    """
    is_first = True
    with file_errors(path), decompression_errors(path):
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file: leave it out")
        for text in _reader(path)(path, text_key):
            if isinstance(text, BadRow) and not text.is_file and not skip_bad_rows:
                raise text.error(is_first)
            yield text
            is_first = False


def described_only(path: Path, text_key: str) -> str | None:
    """Why a JSON file is no data but describes some, as `read_documents` finds; None if not so."""
    if _reader(path) is not read_json:
        return None
    with file_errors(path), decompression_errors(path):
        if starts_an_array(path):
            return None
        with contextlib.closing(read_json(path, text_key)) as texts:
            first = next(texts, None)
    return first.problem if isinstance(first, BadRow) and first.is_file else None


def _reader(path: Path) -> Callable[[Path, str], Iterator[str | BadRow]]:
    """What reads the file, by the ending of its name."""
    name = path.name.lower()
    if name.endswith(PARQUET):
        return _parquet
    name = _without(name, COMPRESSIONS) or name
    if name.endswith(JSON_LINES):
        return read_json_lines
    return read_json if name.endswith(JSON) else _plain_text


def _without(name: str, endings: tuple[str, ...]) -> str | None:
    lower = name.lower()
    return next((name[: -len(ending)] for ending in endings if lower.endswith(ending)), None)


def _parquet(path: Path, text_key: str) -> Iterator[str | BadRow]:
    # Imported here: pyarrow takes half a second that other formats need not pay.
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(path, file, text_key)
            size, decompressed, number = path.stat().st_size, 0, 0
            for batch in file.iter_batches(batch_size=ROWS, columns=[text_key]):
                for value in batch.column(0):
                    number += 1
                    row = f"{path}, row {number}"
                    text = _text_of_value(batch.schema.names[0], value, text_key, row)
                    if isinstance(text, str):
                        decompressed += len(text)  # one stored text may be repeated a million times
                        check_ratio(path, size, decompressed)
                    yield text
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error)[:LONGEST_REASON]
        raise UserError(f"{path}: not a whole Parquet file ({reason}): fetch it again") from error


def _text_of_value(column: str, value: Any, text_key: str, where: str) -> str | BadRow:
    try:
        return text_of({column: value.as_py()}, text_key, where)
    except UnicodeDecodeError as error:  # Arrow does not check its own text
        return not_utf8(where, error)


def _check_columns(path: Path, file: Any, text_key: str) -> None:
    """Refuse a file without the column, or whose metadata gives its text too large a size.

    Pages are decompressed whole.
    """
    columns = [file.schema.column(place) for place in range(len(file.schema))]
    below = f"{text_key}."
    if not any(f"{column.path}.".startswith(below) for column in columns):
        texts = [column.path for column in columns if _holds_text(column)]
        remedy = f"set corpus.text_key to one of {listed(texts)}" if texts else "add one"
        names = listed(file.schema_arrow.names)
        raise UserError(f"{path}: no column '{text_key}'; it has {names}: {remedy}")
    if sum(column.path == text_key for column in columns) > 1:
        raise UserError(f"{path}: has several columns '{text_key}': rename all but one")
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema == text_key or column.path_in_schema.startswith(below):
                check_ratio(path, column.total_compressed_size, column.total_uncompressed_size)


def _holds_text(column: Any) -> bool:
    """Whether a Parquet column has one text, or some bytes, a row."""
    return bool(column.physical_type == "BYTE_ARRAY" and column.max_repetition_level == 0)


def _plain_text(path: Path, _: str) -> Iterator[str]:
    try:
        # Reading as text makes every line end \n.
        with (
            open_decompressed(path) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig") as text,
        ):
            yield from cut_stream(_checked_blocks(path, text))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}): convert the file to UTF-8") from error


def _checked_blocks(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    """Refuse UTF-16 without a byte-order mark, which is UTF-8 in which many characters are NUL."""
    for block in iter(lambda: text.read(2**16), ""):
        if block.count("\0") > MOST_NULS * len(block):
            raise UserError(
                f"{path}: holds NUL characters, as UTF-16 and what is no text do: convert the file "
                "to UTF-8, or begin its name with '_' to leave it out"
            )
        yield block
