"""Compressed files as streams that cannot grow without bound."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from dograph.errors import UserError

MOST_EXPANSION = 300
"""Bytes that one compressed byte may become. Text becomes 3 to 30 times as long, logs up to some
100 times; deflate cannot do more than 1032, so that a bound above would pass every .gz."""
FREE_BYTES = 64 * 2**20
"""Bytes that any file may become: small files of one repeated line are no attack."""
LARGEST_WINDOW = 2**27
"""Bytes that a zstandard frame may ask to be kept in memory, as `zstd` itself has it."""


def check_expansion(path: Path, packed: int, unpacked: int) -> None:
    """Refuses what has grown out of all proportion.

    Args:
        path: of the file.
        packed: bytes of it that were read.
        unpacked: bytes that they have become.

    Raises:
        UserError: naming the file.
    """
    if unpacked > FREE_BYTES and unpacked > MOST_EXPANSION * packed:
        raise UserError(
            f"{path}: its first {packed:,} bytes have become more than {unpacked - 1:,}, over "
            f"{MOST_EXPANSION} times as many, which no text does; leave it out, or unpack it "
            "yourself if you trust it"
        )


class _Unpacked(io.RawIOBase):
    """What a decompressor gives, checked against what it takes."""

    def __init__(self, path: Path, packed: BinaryIO, unpacked: Any) -> None:
        self._path, self._packed, self._unpacked = path, packed, unpacked
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._unpacked.readinto(buffer))
        self._count += count
        check_expansion(self._path, self._packed.tell(), self._count)
        return count

    def close(self) -> None:
        self._unpacked.close()
        self._packed.close()
        super().close()


def open_unpacked(path: Path) -> BinaryIO:
    """Opens a file, unpacked if its name ends in .gz or .zst; memory stays bounded."""
    packed = path.open("rb")
    unpacked: Any
    if path.name.endswith(".gz"):
        unpacked = gzip.GzipFile(fileobj=packed, mode="rb")
    elif path.name.endswith(".zst"):
        # A .zst file may hold several frames, as `cat a.zst b.zst` makes it.
        decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        unpacked = decompressor.stream_reader(packed, read_across_frames=True, closefd=False)
    else:
        return packed
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path, packed, unpacked), 2**20))
