"""Digests of files and of JSON objects, which reveal later damage."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dograph.files.atomic import as_text, write_json
from dograph.files.strict_json import parse_strictly, read_regular

DIGEST = "digest"
"""Key of a verified JSON file that holds the digest of all its other keys."""
BLOCK = 2**20


def new_digest() -> Any:
    """A hash object of the kind that makes all digests."""
    return hashlib.blake2b(digest_size=16)


def file_digest(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    digest = new_digest()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def json_digest(content: dict[str, Any]) -> str:
    """Hexadecimal digest of a JSON object."""
    digest = new_digest()
    digest.update(json.dumps(content, sort_keys=True).encode())
    return str(digest.hexdigest())


def write_verified(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with its digest, whole or not at all."""
    write_json(path, {**content, DIGEST: json_digest(content)})


def read_verified(path: Path) -> dict[str, Any]:
    """The object that `write_verified` wrote, without its digest.

    Raises:
        ValueError: if any byte of the file differs.
    """
    data = read_regular(path)
    value = parse_strictly(data)
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    content = {key: part for key, part in value.items() if key != DIGEST}
    try:
        if value.get(DIGEST) != json_digest(content):
            raise ValueError("its checksum does not match")
        if as_text(value).encode() != data:
            raise ValueError("it is not spelled as it was written")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


def read_marker(path: Path) -> dict[str, Any] | None:
    """The object of a verified file; None if it is missing or damaged: its work is then redone."""
    try:
        return read_verified(path)
    except (OSError, ValueError):
        return None
