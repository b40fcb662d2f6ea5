"""The choice of a domain's documents that are held out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dograph.data.corpus.document import is_validation

NEAR = 2.0
"""Factor by which the held-out share of a domain's bytes may differ from what was asked."""
MOST_WEIGHED = 50_000
"""Documents of a domain whose sizes are kept in memory; of more, no few decide the share."""
SHORTEST_END = 2_000
"""Bytes below which no end of a document is held out."""

Sizes = Sequence[tuple[bytes, int]]
"""Hash and bytes of every document of a domain."""


@dataclass(frozen=True)
class HeldOutByHash:
    """A document is held out by its hash, whatever the others are."""

    fraction: float

    def bytes_of(self, digest: bytes, size: int) -> int:
        """How many bytes at the end of a document of ``size`` bytes are held out: all or none."""
        return size if is_validation(digest, self.fraction) else 0


@dataclass(frozen=True)
class HeldOutBySize:
    """Whole documents, and perhaps the end of one, are held out."""

    whole: frozenset[bytes]
    cut: bytes | None = None
    """Hash of the document whose end is held out."""
    end: int = 0
    """Bytes of that end."""

    def bytes_of(self, digest: bytes, size: int) -> int:
        """How many bytes at the end of a document of ``size`` bytes are held out."""
        if digest in self.whole:
            return size
        return self.end if digest == self.cut else 0


def is_near(held_out: int, total: int, fraction: float) -> bool:
    """Whether ``held_out`` of ``total`` bytes are about the asked share, and not all; ± 1 byte."""
    asked = fraction * total
    return asked / NEAR - 1 <= held_out <= asked * NEAR + 1 and held_out < total


def choose_by_size(sizes: Sizes, fraction: float) -> HeldOutBySize:
    """Hold out about ``fraction`` of the bytes of two or more documents; no split stays empty.

    Documents are taken in the order of their hashes, as in the choice by hash, unless one would
    lead farther away from what is asked, or they are many more than so large a share. If too few
    bytes are held out then, the end of the largest document is added, or, where that would be too
    short, the smallest document. The order in which the documents are given does not matter.
    """
    target = fraction * sum(size for _, size in sizes)
    most = min(max(1, int(NEAR * fraction * len(sizes))), len(sizes) - 1)
    whole: set[bytes] = set()
    taken = 0
    for digest, size in sorted(sizes):
        if size <= 2 * (target - taken) + 1 and len(whole) < most:
            whole.add(digest)
            taken += size
    if taken >= target / NEAR:
        return HeldOutBySize(frozenset(whole))
    rest = sorted((size, digest) for digest, size in sizes if digest not in whole)
    missing, (largest, cut) = int(target) - taken, rest[-1]
    if missing >= SHORTEST_END and largest - missing >= SHORTEST_END:
        return HeldOutBySize(frozenset(whole), cut, missing)
    smallest, digest = rest[0]
    nearer = not taken or (taken + smallest) / target < target / taken
    if nearer and len(rest) > 1:
        whole.add(digest)
    return HeldOutBySize(frozenset(whole))
