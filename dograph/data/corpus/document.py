"""A document: its hash and its split; long text is cut into several."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

HASH_BYTES = 16
PIECE_CHARACTERS = 64_000
"""Length at which plain text is cut into documents, so that memory stays bounded."""


def document_hash(data: bytes) -> bytes:
    """Sixteen bytes that identify a text in UTF-8."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def hash_number(digest: bytes) -> int:
    """The first eight bytes of a document hash as an unsigned 64-bit number."""
    return int.from_bytes(digest[:8], "big")


def is_validation(digest: bytes, fraction: float) -> bool:
    """Whether a document is held out.

    Only the hash decides: the choice is the same in every order, on every machine and in every
    corpus, and a larger fraction holds out a superset.
    """
    return hash_number(digest) < fraction * 2.0**64


def cut_end(data: bytes, size: int) -> tuple[bytes, bytes]:
    """Cut about ``size`` bytes off the end of a text in UTF-8; neither part is empty.

    The cut is after the nearest blank line if there is one nearby, else after a line, else after a
    space.
    """
    place = len(data) - size
    first, last = max(0, place - size // 4), place + size // 4
    for mark in (b"\n\n", b"\n", b" "):
        marks = data.rfind(mark, first, place), data.find(mark, place, last)
        if near := [found + len(mark) for found in marks if found >= 0]:
            place = min(near, key=lambda end: abs(end - place))
            break
    while data[place] & 0xC0 == 0x80:  # within a character
        place -= 1
    return data[:place], data[place:]


def cut_stream(blocks: Iterable[str], limit: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut text that arrives in blocks into pieces of at most ``limit`` characters.

    A piece ends at a blank line if there is one in its second half, else at a line's end, else
    after a space, else at the limit. Memory holds at most one block and one piece.
    """
    rest = ""
    for block in blocks:
        rest += block
        start = 0
        while len(rest) - start > limit:
            end = _boundary(rest, start, limit)
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _boundary(text: str, start: int, limit: int) -> int:
    half, full = start + limit // 2, start + limit
    for mark in ("\n\n", "\n", " "):
        place = text.rfind(mark, half, full)
        if place >= 0:
            return place + len(mark)
    return full
