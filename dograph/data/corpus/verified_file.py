"""Files of a store that are checked when they are first read: a store may hold terabytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dograph.data.corpus.chunks import Chunk, TokenType
from dograph.errors import UserError
from dograph.files.checksums import BLOCK, new_digest

Read = Callable[[int], bytes]
"""Reads up to so many bytes; empty at the file's end."""
Check = Callable[[Read], None]
"""Reads a file's content; raises a ValueError if it is wrong."""


def damaged(store: Path, file: Path, why: object) -> UserError:
    """The error for a file of a store that cannot be used, with the remedy."""
    reason = f"{type(why).__name__}: {why}" if isinstance(why, OSError) else str(why)
    return UserError(
        f"{file}: the store is damaged or of another version ({reason}): put the file back, or "
        f"move {store} away and run `dograph prepare` on the recipe that names its text; "
        "checkpoints are kept, and the same command then resumes"
    )


@dataclass
class VerifiedFile:
    """One file of a store, read only as long as its bytes have the manifest's digest.

    Its size is compared first, if given; then ``check_content`` reads its content, if given.
    """

    store: Path
    """Folder of the store."""
    path: Path
    digest: str
    size: int | None = None
    check_content: Check | None = None
    _verified: tuple[int, int, int] | None = None

    def check(self) -> bool:
        """Read the whole file if that was not done before, or the file has changed since.

        Otherwise this compares only size and times: reading a mapped file that was cut short would
        kill the process. Returns whether it was read: a mapping may then be of an earlier file.
        """
        try:
            state = os.lstat(self.path)
            if (state.st_ino, state.st_size, state.st_ctime_ns) == self._verified:
                return False
            self._verify(state)
        except (OSError, ValueError) as error:
            self._verified = None
            raise damaged(self.store, self.path, error) from error
        return True

    def _verify(self, state: os.stat_result) -> None:
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is not a regular file")
        if self.size not in (None, state.st_size):
            raise ValueError(f"it has {state.st_size} bytes instead of {self.size}")
        digest = new_digest()
        with self.path.open("rb") as file:

            def read(size: int) -> bytes:
                block = file.read(size)
                digest.update(block)
                return block

            if self.check_content is not None:
                self.check_content(read)
            while read(BLOCK):
                pass
        if digest.hexdigest() != self.digest:
            raise ValueError("its checksum does not match")
        self._verified = (state.st_ino, state.st_size, state.st_ctime_ns)


def check_chunk(read: Read, chunk: Chunk, token_type: TokenType, vocab_size: int) -> None:
    """Check a chunk's header, and that every token is in the vocabulary."""
    documents = int.from_bytes(read(chunk.header_bytes)[:4], "little")
    if documents != chunk.chunk_size:
        raise ValueError(f"it holds {documents} documents instead of {chunk.chunk_size}")
    # Read as unsigned, a negative number is a large one.
    unsigned = np.dtype(f"<u{np.dtype(token_type).itemsize}")
    largest = 0
    while block := read(BLOCK):
        largest = max(largest, int(np.frombuffer(block, unsigned).max()))
    if largest >= vocab_size:
        raise ValueError(f"it holds token {largest} of a vocabulary of {vocab_size}")


def check_document_ends(read: Read, tokens: int) -> None:
    """Check that the documents' ends rise, up to the number of tokens."""
    last = 0
    while block := read(BLOCK):
        ends = np.frombuffer(block, "<i8")
        if ends[0] <= last or (ends[1:] <= ends[:-1]).any():
            raise ValueError("its documents do not follow one another")
        last = int(ends[-1])
    if last != tokens:
        raise ValueError(f"its documents end at token {last} instead of {tokens}")
