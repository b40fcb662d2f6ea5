"""What litdata's files of tokens say about themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

INDEX = "index.json"
_CHUNK_NAME = re.compile(r"chunk-(\d+)-(\d+)\.bin")


def read_chunks(folder: Path) -> list[dict[str, Any]]:
    """The chunks in the order of the tokens; ``dim`` is a chunk's number of tokens."""
    chunks: list[dict[str, Any]] = json.loads((folder / INDEX).read_text())["chunks"]
    return chunks


def document_lengths(folder: Path, token_type: str) -> Iterator[np.ndarray]:
    """Tokens of each document, one int64 array per chunk.

    A chunk begins with its number of documents and their n + 1 byte offsets, as uint32.
    """
    width = np.dtype(token_type).itemsize
    for chunk in read_chunks(folder):
        with (folder / chunk["filename"]).open("rb") as file:
            count = int(np.fromfile(file, np.uint32, 1)[0])
            offsets = np.fromfile(file, np.uint32, count + 1)
        lengths = np.diff(offsets.astype(np.int64)) // width
        if lengths.sum() != chunk["dim"]:
            raise RuntimeError(f"{folder / chunk['filename']}: its documents do not fill it")
        yield lengths


def write_document_ends(folder: Path, documents: int, token_type: str) -> int:
    """Write ``<folder>.ends``, cumulative int64 token offsets; return the number of tokens."""
    names = [chunk["filename"] for chunk in read_chunks(folder)]
    if names != sorted(names, key=_place):
        raise RuntimeError(f"{folder / INDEX}: chunks are not in the order they were written")
    total = seen = 0
    with folder.with_suffix(".ends").open("wb") as file:
        for lengths in document_lengths(folder, token_type):
            (total + np.cumsum(lengths)).astype("<i8").tofile(file)
            total += int(lengths.sum())
            seen += len(lengths)
    if seen != documents:
        raise RuntimeError(f"{folder}: {seen} documents stored, {documents} staged")
    return total


def _place(name: str) -> tuple[int, ...]:
    found = _CHUNK_NAME.fullmatch(name)
    if found is None:
        raise RuntimeError(f"unexpected chunk name {name}")
    return tuple(int(number) for number in found.groups())
