"""Files of a store that are checked when they are first read: a store may hold terabytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dograph.data.corpus.chunks import Chunk
from dograph.errors import UserError
from dograph.files.checksums import BLOCK, new_digest

Look = Callable[[BinaryIO, Callable[[bytes], None]], None]
"""Reads a file to its end and hands on all its bytes; raises ValueError if they make no sense."""


def damaged(store: Path, file: Path, why: object) -> UserError:
    """The error for a file of a store that cannot be used, with the remedy."""
    reason = f"{type(why).__name__}: {why}" if isinstance(why, OSError) else str(why)
    return UserError(
        f"{file}: the store is damaged or of another version ({reason}); put the file back, or "
        f"delete {store}, then run `dograph prepare` on your recipe. Checkpoints are kept: the "
        "same command then goes on."
    )


class SealedFile:
    """One file, read only as long as it is what the manifest says.

    Args:
        store: folder of the store.
        path: of the file.
        digest: of its bytes.
        size: in bytes.
        look: what else its content must pass.
    """

    def __init__(self, store: Path, path: Path, digest: str, size: int, look: Look) -> None:
        self.path = path
        self._text = os.fspath(path)
        self._store, self._digest, self._size, self._look = store, digest, size, look
        self._seen: tuple[int, int, int] | None = None

    def check(self) -> bool:
        """Read the whole file if it was not read before, or was touched since.

        Afterwards this costs one look at its size and times: a mapped file that was cut would end
        the process.

        Returns:
            Whether it was read: what was mapped of it before may be another file by now.

        Raises:
            UserError: if it is missing or its content is another, naming it.
        """
        try:
            state = os.lstat(self._text)
            if (state.st_ino, state.st_size, state.st_ctime_ns) == self._seen:
                return False
            self._verify(state)
        except (OSError, ValueError) as error:
            self._seen = None
            raise damaged(self._store, self.path, error) from error
        return True

    def _verify(self, state: os.stat_result) -> None:
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is no plain file")
        if state.st_size != self._size:
            raise ValueError(f"it has {state.st_size} bytes instead of {self._size}")
        digest = new_digest()
        with self.path.open("rb") as file:
            self._look(file, digest.update)
        if digest.hexdigest() != self._digest:
            raise ValueError("its checksum does not fit")
        self._seen = (state.st_ino, state.st_size, state.st_ctime_ns)


class ChunkLook:
    """Looks through a chunk: its header, and that every token is one of the vocabulary."""

    def __init__(self, chunk: Chunk, token_type: str, vocab_size: int) -> None:
        self._chunk, self._vocab_size = chunk, vocab_size
        # Without a sign, a negative number is a large one.
        self._type = np.dtype(f"<u{np.dtype(token_type).itemsize}")

    def __call__(self, file: BinaryIO, update: Callable[[bytes], None]) -> None:
        """See `Look`."""
        header = file.read(self._chunk.header_bytes)
        update(header)
        documents = int.from_bytes(header[:4], "little")
        if documents != self._chunk.chunk_size:
            raise ValueError(f"it holds {documents} documents instead of {self._chunk.chunk_size}")
        largest = 0
        while block := file.read(BLOCK):
            update(block)
            largest = max(largest, int(np.frombuffer(block, self._type).max()))
        if largest >= self._vocab_size:
            raise ValueError(f"it holds token {largest} of a vocabulary of {self._vocab_size}")


class EndsLook:
    """Looks through the ends of documents: they rise, up to the number of tokens."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __call__(self, file: BinaryIO, update: Callable[[bytes], None]) -> None:
        """See `Look`."""
        last = 0
        while block := file.read(BLOCK):
            update(block)
            ends = np.frombuffer(block, "<i8")
            if ends[0] <= last or (ends[1:] <= ends[:-1]).any():
                raise ValueError("its documents do not follow one another")
            last = int(ends[-1])
        if last != self._tokens:
            raise ValueError(f"its documents end at token {last} instead of {self._tokens}")


def look_at_bytes(file: BinaryIO, update: Callable[[bytes], None]) -> None:
    """A `Look` at what needs nothing but its digest."""
    while block := file.read(BLOCK):
        update(block)
