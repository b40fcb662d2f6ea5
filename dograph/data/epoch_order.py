"""One domain's order: a seeded permutation per epoch, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dograph.errors import UserError


class EpochOrder:
    """Draws a domain's sequences without replacement, in one seeded order an epoch.

    Chunks come in a shuffled order and are shuffled within, so that a remote store is read one
    chunk at a time and memory holds one chunk's order, whatever the domain's size. ``domain`` is
    an index, by which orders differ; sequences of ``reserved`` indices are never drawn.
    """

    def __init__(
        self, chunk_lengths: Sequence[int], seed: int, domain: int, reserved: Sequence[int] = ()
    ) -> None:
        whole = np.asarray(chunk_lengths, dtype=np.int64)
        self._bounds = np.concatenate([[0], np.cumsum(whole)])
        self._reserved = np.sort(np.asarray(reserved, dtype=np.int64))
        inside = np.searchsorted(self._reserved, self._bounds)
        self.chunk_lengths = whole - np.diff(inside)
        self.length = int(self.chunk_lengths.sum())
        if self.length == 0:
            raise UserError(f"domain {domain} has no whole sequence to draw")
        self.seed, self.domain = seed, domain
        self.seek(0, 0)

    @property
    def bound(self) -> int:
        """One more than the largest index, reserved ones included."""
        return int(self._bounds[-1])

    def seek(self, epoch: int, cursor: int) -> None:
        """Go to the ``cursor``-th draw of an epoch; a UserError if it has fewer."""
        if not 0 <= cursor <= self.length:
            raise UserError(f"domain {self.domain} has {self.length} draws an epoch, not {cursor}")
        self.epoch, self.cursor = epoch, cursor
        self._chunks = self._permutation(len(self.chunk_lengths))
        self._ends = np.cumsum(self.chunk_lengths[self._chunks])
        self._first = self._end = 0  # the open chunk's draws; none is open yet

    def next(self) -> int:
        """Index, within the domain, of the next sequence."""
        if self.cursor == self.length:
            self.seek(self.epoch + 1, 0)
        if self.cursor >= self._end:
            self._open()
        index = self._order[self.cursor - self._first]
        self.cursor += 1
        return index

    def _open(self) -> None:
        """Shuffle the chunk that holds the cursor; a list, since that is quickest to index."""
        place = int(np.searchsorted(self._ends, self.cursor, side="right"))
        chunk = int(self._chunks[place])
        length = int(self.chunk_lengths[chunk])
        self._end = int(self._ends[place])
        self._first = self._end - length
        free = np.arange(self._bounds[chunk], self._bounds[chunk + 1])
        if len(self._reserved):
            free = np.setdiff1d(free, self._reserved, assume_unique=True)
        self._order: list[int] = free[self._permutation(length, chunk)].tolist()

    def _permutation(self, length: int, *chunk: int) -> npt.NDArray[np.int64]:
        key = [self.seed, self.domain, self.epoch, *(number + 1 for number in chunk)]
        return np.random.default_rng(key).permutation(length)
