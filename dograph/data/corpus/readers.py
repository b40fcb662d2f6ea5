"""Documents from files of JSON lines, Parquet and plain text, compressed or not, as streams."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from dograph.data.corpus.document import cut_stream
from dograph.errors import UserError, file_errors

COMPRESSIONS = (".gz", ".zst")
JSON_LINES = (".jsonl", ".ndjson")
TEXT = (".txt", ".md")
PARQUET = (".parquet",)
LARGEST_RATIO = 300
"""Bytes that one compressed byte may become. Text becomes 3 to 30 times as long, logs up to about
100 times; deflate cannot exceed 1032, so that a larger bound would pass every .gz."""
ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that any file may become: a small file of one repeated line is harmless."""
LARGEST_WINDOW = 2**27
"""Bytes that a zstandard frame may keep in memory, the limit of `zstd` itself."""
LONGEST_LINE = 256 * 2**20
"""Bytes of a JSON line; a file with longer ones holds something else."""
ROWS = 16
"""Rows of a Parquet file read at once: each may be many megabytes long."""
MOST_KEYS, LONGEST_KEY, LONGEST_REASON = 20, 60, 300
"""Limits of what a message quotes: keys, characters of a key, characters of a library's error."""


def readable_stem(path: Path) -> str | None:
    """A file's name without the endings of its format; None if no reader knows the format."""
    for ending in COMPRESSIONS:
        if path.name.endswith(ending):
            return _without(path.name.removesuffix(ending), JSON_LINES + TEXT)
    return _without(path.name, JSON_LINES + TEXT + PARQUET)


def read_documents(path: Path, text_key: str) -> Iterator[str]:
    """Yield the documents of one file, in order.

    A JSON line or a Parquet row is a document, with its text in the key or column ``text_key``;
    plain text is cut at blank lines into documents of at most 64,000 characters.

    Raises:
        UserError: naming file, line and remedy, if the file is damaged, lacks ``text_key``, grows
            out of all proportion when it is decompressed, or is not a regular file.
    """
    with file_errors(path):
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file: leave it out")
        yield from _documents(path, text_key)


def _documents(path: Path, text_key: str) -> Iterator[str]:
    try:
        if path.name.endswith(PARQUET):
            yield from _parquet(path, text_key)
        elif path.name.removesuffix(".gz").removesuffix(".zst").endswith(JSON_LINES):
            yield from _json_lines(path, text_key)
        else:
            yield from _plain_text(path)
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        if "too much memory" in str(error):
            raise UserError(
                f"{path}: its zstandard window is above {LARGEST_WINDOW // 2**20} MiB: compress it "
                "without --long, or with --long=27"
            ) from error
        raise UserError(f"{path}: damaged or cut short ({error}): fetch the file again") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}): convert the file") from error


def _without(name: str, endings: tuple[str, ...]) -> str | None:
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), None)


def _json_lines(path: Path, text_key: str) -> Iterator[str]:
    with open_decompressed(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise UserError(
                    f"{path}, line {number}: longer than {LONGEST_LINE // 2**20} MiB: write one "
                    "JSON object per line"
                )
            if line.strip():
                yield _text_of_line(line, text_key, f"{path}, line {number}")


def _text_of_line(line: bytes, text_key: str, where: str) -> str:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error}): convert the file") from error
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise UserError(f"{where}: not JSON ({error}): write one object per line") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: a {type(row).__name__}: each line must be a JSON object")
    if text_key not in row:
        raise UserError(
            f"{where}: no key '{text_key}'; it has {_listed(sorted(row))}: set corpus.text_key to "
            "one of them"
        )
    return _checked_text(row[text_key], text_key, where)


def _checked_text(value: Any, text_key: str, where: str) -> str:
    if value is None:
        return ""  # an absent text is an empty document, which staging skips
    if not isinstance(value, str):
        raise UserError(
            f"{where}: '{text_key}' is a {type(value).__name__}, not text: set corpus.text_key to "
            "the key that holds the text"
        )
    return value


def _parquet(path: Path, text_key: str) -> Iterator[str]:
    # Imported here: pyarrow takes half a second that other formats need not pay.
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if text_key not in names:
                raise UserError(
                    f"{path}: no column '{text_key}'; it has {_listed(names)}: set "
                    "corpus.text_key to one of them"
                )
            _check_columns(path, file.metadata, text_key)
            size, decompressed = path.stat().st_size, 0
            for batch in file.iter_batches(batch_size=ROWS, columns=[text_key]):
                for value in batch.column(0):
                    text = _checked_text(value.as_py(), text_key, str(path))
                    decompressed += len(text)  # one stored text may be repeated a million times
                    check_ratio(path, size, decompressed)
                    yield text
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error)[:LONGEST_REASON]
        raise UserError(f"{path}: not a whole Parquet file ({reason}): fetch it again") from error


def _check_columns(path: Path, metadata: Any, text_key: str) -> None:
    """Refuse text whose metadata gives too large a size: its pages are decompressed whole."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema.split(".")[0] == text_key:
                check_ratio(path, column.total_compressed_size, column.total_uncompressed_size)


def _listed(keys: Iterable[str]) -> str:
    """Keys of an untrusted file for a message, which they must not flood."""
    short = [key if len(key) <= LONGEST_KEY else f"{key[:LONGEST_KEY]}…" for key in keys]
    more = f" and {len(short) - MOST_KEYS} more" if len(short) > MOST_KEYS else ""
    return f"{short[:MOST_KEYS]}{more}"


def _plain_text(path: Path) -> Iterator[str]:
    with open_decompressed(path) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
        yield from cut_stream(iter(lambda: text.read(2**16), ""))


def check_ratio(path: Path, compressed: int, decompressed: int) -> None:
    """Refuse a file whose bytes read so far have become far more when decompressed."""
    if decompressed > ALWAYS_ALLOWED and decompressed > LARGEST_RATIO * compressed:
        raise UserError(
            f"{path}: its first {compressed:,} bytes have become more than {decompressed - 1:,}, "
            f"over {LARGEST_RATIO} times as many, unlike any text: leave it out, or decompress it "
            "yourself if you trust it"
        )


class _CheckedStream(io.RawIOBase):
    """A decompressor's output, its size checked against the input's."""

    def __init__(self, path: Path, compressed: BinaryIO, decompressed: Any) -> None:
        self._path, self._compressed, self._decompressed = path, compressed, decompressed
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._decompressed.readinto(buffer))
        self._count += count
        check_ratio(self._path, self._compressed.tell(), self._count)
        return count

    def close(self) -> None:
        self._decompressed.close()
        self._compressed.close()
        super().close()


def open_decompressed(path: Path) -> BinaryIO:
    """Open a file, decompressed if its name ends in .gz or .zst, in bounded memory."""
    file = path.open("rb")
    decompressed: Any
    if path.name.endswith(".gz"):
        decompressed = gzip.GzipFile(fileobj=file, mode="rb")
    elif path.name.endswith(".zst"):
        # A .zst file may hold several frames, like the output of `cat a.zst b.zst`.
        decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        decompressed = decompressor.stream_reader(file, read_across_frames=True, closefd=False)
    else:
        return file
    return cast(BinaryIO, io.BufferedReader(_CheckedStream(path, file, decompressed), 2**20))
