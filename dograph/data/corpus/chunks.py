"""litdata's index and chunks: the files that hold a split's tokens."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from dograph.errors import UserError
from dograph.files.atomic import write_json
from dograph.files.records import Count, from_dict
from dograph.files.strict_json import read_json_strictly, shown

INDEX = "index.json"
TokenType = Literal["uint16", "int32"]
"""NumPy's name of the stored integers."""
TOKEN_FORMATS: dict[TokenType, str] = {"uint16": "no_header_numpy:5", "int32": "no_header_numpy:2"}
"""litdata's names of the integer types that a store may hold."""
_CHUNK_NAME = re.compile(r"chunk-(0|[1-9]\d{0,8})-(0|[1-9]\d{0,8})\.bin", re.ASCII)


def _chunk_number(key: str, filename: str) -> tuple[int, int]:
    """(worker, number) of a chunk, from its file's name."""
    match = _CHUNK_NAME.fullmatch(filename)
    if match is None:
        raise ValueError(f"{key} is {shown(filename)}: it must be chunk-WORKER-NUMBER.bin")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Chunk:
    """One file of tokens, with litdata's names."""

    filename: Annotated[str, _chunk_number]
    dim: Count
    """Tokens."""
    chunk_size: Count
    """Documents."""
    chunk_bytes: Count
    """Bytes of the file."""

    @property
    def header_bytes(self) -> int:
        """Bytes before the tokens: the number of documents, and one more offset than that."""
        return 4 * (self.chunk_size + 2)


@dataclass(frozen=True)
class _Index:
    """A split's ``index.json``."""

    chunks: tuple[Chunk, ...]
    config: Any


def read_chunks(folder: Path, token_type: TokenType) -> list[Chunk]:
    """The chunks of a split's folder, in the order of the tokens.

    A ValueError says that `write_index` cannot have written the folder's index.
    """
    index = from_dict(_Index, read_json_strictly(folder / INDEX))
    if index.config != _config(token_type):  # reading some other formats would run code
        raise ValueError(f"config is {shown(index.config)}: it must be as dograph writes it")
    width = np.dtype(token_type).itemsize
    for chunk in index.chunks:
        if chunk.chunk_bytes != chunk.header_bytes + chunk.dim * width:
            raise ValueError(f"the sizes of {chunk.filename} contradict each other")
    numbers = [_chunk_number("filename", chunk.filename) for chunk in index.chunks]
    if any(before >= after for before, after in itertools.pairwise(numbers)):
        raise ValueError("chunks are not in the order they were written")
    return list(index.chunks)


def write_index(folder: Path, token_type: TokenType, documents: int, remedy: str) -> list[Chunk]:
    """Replace litdata's index by the part that is needed, the same for the same tokens.

    If the number of documents differs, a UserError ends with the remedy.
    """
    index = read_json_strictly(folder / INDEX)
    stored = sum(entry["chunk_size"] for entry in index["chunks"])
    if stored != documents:
        raise UserError(f"{folder}: {stored} documents stored, {documents} staged: {remedy}")
    config = index["config"]
    asked = [TOKEN_FORMATS[token_type]]
    if config["data_format"] != asked or config["compression"] or config["encryption"]:
        raise RuntimeError(f"{folder / INDEX}: litdata wrote {config}")
    keys = Chunk.__dataclass_fields__
    chunks = [{key: entry[key] for key in keys} for entry in index["chunks"]]
    write_json(folder / INDEX, {"chunks": chunks, "config": _config(token_type)})
    return read_chunks(folder, token_type)


def write_document_ends(folder: Path, chunks: list[Chunk], token_type: TokenType) -> int:
    """Write ``<folder>.ends``, cumulative int64 token offsets; return the number of tokens.

    A chunk begins with its number of documents and their n + 1 byte offsets, as uint32.
    """
    width, total = np.dtype(token_type).itemsize, 0
    with folder.with_suffix(".ends").open("wb") as ends:
        for chunk in chunks:
            with (folder / chunk.filename).open("rb") as file:
                count = int(np.fromfile(file, np.uint32, 1)[0])
                offsets = np.fromfile(file, np.uint32, count + 1).astype(np.int64)
            lengths = np.diff(offsets) // width
            if lengths.sum() != chunk.dim:
                raise RuntimeError(f"{file.name}: its documents do not fill it")
            (total + np.cumsum(lengths)).astype("<i8").tofile(ends)
            total += chunk.dim
    return total


def _config(token_type: TokenType) -> dict[str, Any]:
    """The settings by which litdata reads the tokens."""
    return {
        "chunk_bytes": None,
        "chunk_size": None,
        "compression": None,
        "data_format": [TOKEN_FORMATS[token_type]],
        "data_spec": None,
        "encryption": None,
        "item_loader": "TokensLoader",
    }
