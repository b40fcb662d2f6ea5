"""Decompressed files as streams, in bounded memory and refused if they grow beyond any text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from dograph.errors import UserError

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
LARGEST_RATIO = 300
"""Bytes that one compressed byte may become. Text becomes 3 to 30 times as long, logs up to about
100 times; deflate cannot exceed 1032, so that a larger bound would pass every .gz."""
ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that any file may become: a small file of one repeated line is harmless."""
LARGEST_WINDOW = 2**27
"""Bytes that a zstandard frame may keep in memory, the limit of `zstd` itself."""


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
    """Open a file, decompressed if its name ends in one of `COMPRESSIONS`, in any case."""
    file = path.open("rb")
    ending = path.suffix.lower()
    decompressed: Any
    if ending == ".gz":
        decompressed = gzip.GzipFile(fileobj=file, mode="rb")
    elif ending == ".zst":
        # A .zst file may hold several frames, like the output of `cat a.zst b.zst`.
        decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        decompressed = decompressor.stream_reader(file, read_across_frames=True, closefd=False)
    elif ending == ".xz":
        decompressed = lzma.LZMAFile(file)  # noqa: SIM115
    elif ending == ".bz2":
        decompressed = bz2.BZ2File(file)
    else:
        return file
    return cast(BinaryIO, io.BufferedReader(_CheckedStream(path, file, decompressed), 2**20))


@contextmanager
def decompression_errors(path: Path) -> Iterator[None]:
    """Name the file that cannot be decompressed, and the remedy."""
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's; gzip and bz2 raise theirs without a number
        if "too much memory" in str(error):
            raise UserError(
                f"{path}: its zstandard window is above {LARGEST_WINDOW // 2**20} MiB: compress it "
                "without --long, or with --long=27"
            ) from error
        raise UserError(f"{path}: damaged or cut short ({error}): fetch the file again") from error
