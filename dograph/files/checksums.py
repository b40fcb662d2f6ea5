"""Digests of files and of facts: what was damaged since it was written is found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dograph.files.atomic import as_text, write_json
from dograph.files.strict_json import parse_strictly, read_plain

DIGEST = "digest"
"""Key of a sealed file that holds the digest of all its other keys."""
BLOCK = 2**20


def new_digest() -> Any:
    """A hash object of the kind that all digests of a store are made with."""
    return hashlib.blake2b(digest_size=16)


def file_digest(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    digest = new_digest()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def facts_digest(facts: dict[str, Any]) -> str:
    """Hexadecimal digest of a JSON object."""
    digest = new_digest()
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return str(digest.hexdigest())


def write_sealed(path: Path, facts: dict[str, Any]) -> None:
    """Write a JSON object with its digest, in one step."""
    write_json(path, {**facts, DIGEST: facts_digest(facts)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote, without its digest.

    Raises:
        ValueError: if a single byte of the file is another.
        OSError: if it cannot be read.
    """
    data = read_plain(path)
    value = parse_strictly(data)
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    facts = {key: part for key, part in value.items() if key != DIGEST}
    try:
        if value.get(DIGEST) != facts_digest(facts):
            raise ValueError("its checksum does not fit")
        if as_text(value).encode() != data:
            raise ValueError("it is not spelled as it was written")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return facts


def read_marker(path: Path) -> dict[str, Any] | None:
    """The object of a sealed file, or None if it is missing or damaged: the work is then redone."""
    try:
        return read_sealed(path)
    except (OSError, ValueError):
        return None
