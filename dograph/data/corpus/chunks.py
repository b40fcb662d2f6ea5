"""What litdata's files of tokens say about themselves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dograph.errors import UserError
from dograph.files.atomic import write_json
from dograph.files.strict_json import read_json_strictly, shown, whole_number, with_keys

INDEX = "index.json"
TOKEN_FORMATS = {"uint16": "no_header_numpy:5", "int32": "no_header_numpy:2"}
"""litdata's names of the integers that a store may hold."""
_CHUNK_NAME = re.compile(r"chunk-(0|[1-9]\d{0,8})-(0|[1-9]\d{0,8})\.bin", re.ASCII)


@dataclass(frozen=True)
class Chunk:
    """One file of tokens, in litdata's words."""

    filename: str
    dim: int
    """Tokens."""
    chunk_size: int
    """Documents."""
    chunk_bytes: int
    """Bytes of the file."""

    @property
    def header_bytes(self) -> int:
        """Bytes before the tokens: the number of documents, and that many offsets and one more."""
        return 4 * (self.chunk_size + 2)


def read_chunks(folder: Path, token_type: str) -> list[Chunk]:
    """The chunks in the order of the tokens.

    Raises:
        ValueError: if the folder's index is not one that `write_index` wrote.
        OSError: if it cannot be read.
    """
    index = with_keys(read_json_strictly(folder / INDEX), {"chunks", "config"}, "the index")
    if index["config"] != _config(token_type) or not isinstance(index["chunks"], list):
        # Of other formats, some are code that reading would run.
        raise ValueError(f"its config is {shown(index['config'])}, not one that we write")
    chunks = [_chunk(entry, np.dtype(token_type).itemsize) for entry in index["chunks"]]
    places = [_place(chunk.filename) for chunk in chunks]
    if any(before >= after for before, after in itertools.pairwise(places)):
        raise ValueError("its chunks are not in the order they were written")
    return chunks


def write_index(folder: Path, token_type: str, documents: int, remedy: str) -> list[Chunk]:
    """Replace litdata's index by what is needed of it, the same for the same tokens.

    Raises:
        UserError: if other documents were staged; the message ends with the remedy.
        RuntimeError: if litdata wrote another format than it should have.
    """
    index = read_json_strictly(folder / INDEX)
    stored = sum(entry["chunk_size"] for entry in index["chunks"])
    if stored != documents:
        raise UserError(f"{folder}: {stored} documents stored, {documents} staged; {remedy}")
    config = index["config"]
    wanted = [TOKEN_FORMATS[token_type]]
    if config["data_format"] != wanted or config["compression"] or config["encryption"]:
        raise RuntimeError(f"{folder / INDEX}: litdata wrote {config}")
    keys = Chunk.__dataclass_fields__
    chunks = [Chunk(**{key: entry[key] for key in keys}) for entry in index["chunks"]]
    entries = [asdict(chunk) for chunk in chunks]
    write_json(folder / INDEX, {"chunks": entries, "config": _config(token_type)})
    return read_chunks(folder, token_type)


def document_lengths(folder: Path, chunks: list[Chunk], token_type: str) -> Iterator[np.ndarray]:
    """Tokens of each document, one int64 array per chunk.

    A chunk begins with its number of documents and their n + 1 byte offsets, as uint32.
    """
    width = np.dtype(token_type).itemsize
    for chunk in chunks:
        with (folder / chunk.filename).open("rb") as file:
            count = int(np.fromfile(file, np.uint32, 1)[0])
            offsets = np.fromfile(file, np.uint32, count + 1)
        lengths = np.diff(offsets.astype(np.int64)) // width
        if lengths.sum() != chunk.dim:
            raise RuntimeError(f"{folder / chunk.filename}: its documents do not fill it")
        yield lengths


def write_document_ends(folder: Path, chunks: list[Chunk], token_type: str) -> int:
    """Write ``<folder>.ends``, cumulative int64 token offsets; return the number of tokens."""
    total = 0
    with folder.with_suffix(".ends").open("wb") as file:
        for lengths in document_lengths(folder, chunks, token_type):
            (total + np.cumsum(lengths)).astype("<i8").tofile(file)
            total += int(lengths.sum())
    return total


def _config(token_type: str) -> dict[str, Any]:
    """What litdata must know to read the tokens."""
    return {
        "chunk_bytes": None,
        "chunk_size": None,
        "compression": None,
        "data_format": [TOKEN_FORMATS[token_type]],
        "data_spec": None,
        "encryption": None,
        "item_loader": "TokensLoader",
    }


def _chunk(entry: Any, width: int) -> Chunk:
    values = with_keys(entry, set(Chunk.__dataclass_fields__), "a chunk")
    name = values["filename"]
    _place(name)
    numbers = {key: whole_number(values[key], key) for key in values if key != "filename"}
    chunk = Chunk(filename=name, **numbers)
    if chunk.chunk_bytes != chunk.header_bytes + chunk.dim * width:
        raise ValueError(f"the sizes of {name} contradict each other")
    return chunk


def _place(name: Any) -> tuple[int, ...]:
    found = _CHUNK_NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"{shown(name)} is no name of a chunk")
    return tuple(int(number) for number in found.groups())
