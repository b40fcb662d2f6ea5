"""Compressed files as streams of bounded growth."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from dograph.errors import UserError

LARGEST_RATIO = 300
"""Bytes that one compressed byte may become. Text becomes 3 to 30 times as long, logs up to about
100 times; deflate cannot exceed 1032, so that a larger bound would pass every .gz."""
ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that any file may become: a small file of one repeated line is harmless."""
LARGEST_WINDOW = 2**27
"""Bytes that a zstandard frame may keep in memory, the limit of `zstd` itself."""


def check_ratio(path: Path, compressed: int, decompressed: int) -> None:
    """Refuse a file that grows out of all proportion.

    Args:
        path: path of the file.
        compressed: bytes read so far.
        decompressed: bytes that they have become.

    Raises:
        UserError: naming the file.
    """
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
