"""The manifest of a store, which may be untrusted: its keys, types and ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from dograph.data.corpus.chunks import INDEX, TokenType
from dograph.data.corpus.derived import Derivation
from dograph.data.corpus.left_out import DocumentsLeftOut, FilesLeftOut
from dograph.data.corpus.round_trip import RoundTrip
from dograph.errors import UserError, check_range
from dograph.files.checksums import read_verified
from dograph.files.levels import check_levels
from dograph.files.records import Count, from_dict
from dograph.files.strict_json import read_json_strictly, shown

FORMAT = 2
"""Raised when stores of an earlier version of this code can no longer be read."""
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SPLITS: tuple[Split, ...] = ("train", "validation")
_SAFE_PART = r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
_SAFE_NAME = re.compile(f"{_SAFE_PART}(/{_SAFE_PART})*")
_DIGEST = re.compile(r"[0-9a-f]{32}", re.ASCII)

Split = Literal["train", "validation"]


def check_domain_name(where: Path | str, name: str) -> None:
    """Refuse names that could leave the store's folder or confuse a command line.

    ``where`` is the path or key that gives the name, for the message.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise UserError(
            f"{where}: {shown(name)} cannot name a domain: use letters, digits, '_', '-' and "
            "single dots, beginning with a letter or digit, and '/' between levels"
        )


def is_digest(value: str) -> bool:
    """Whether a text is spelled as digests are."""
    return _DIGEST.fullmatch(value) is not None


def _check_digest(key: str, value: str) -> None:
    if not is_digest(value):
        raise ValueError(f"{key} is {shown(value)}: it must be a digest")


Digest = Annotated[str, _check_digest]


@dataclass(frozen=True)
class DomainEntry:
    """Counts of one domain; those without ``validation`` in their name are of the train split."""

    name: Annotated[str, check_domain_name]
    documents: Count
    validation_documents: Count
    train_tokens: Count
    validation_tokens: Count
    bytes: Count
    derived: Derivation | None = None
    """What the domain was made from; None: from the source's own text."""
    left_out: DocumentsLeftOut = field(default_factory=DocumentsLeftOut)
    validation_bytes: Count | None = None
    """None in a store of an earlier version, as is ``round_trip``."""
    round_trip: RoundTrip | None = None
    """What the tokenizer keeps of a sample of the domain's text."""

    @property
    def held_out(self) -> float | None:
        """Share of the domain's bytes that is held out for validation; None: not known."""
        if self.validation_bytes is None or not self.bytes + self.validation_bytes:
            return None
        return self.validation_bytes / (self.bytes + self.validation_bytes)

    def counts(self, split: Split) -> tuple[int, int]:
        """(documents, tokens) of a split."""
        if split == "train":
            return self.documents, self.train_tokens
        return self.validation_documents, self.validation_tokens

    def splits(self) -> Iterator[Split]:
        """The splits that hold a document."""
        return (split for split in SPLITS if self.counts(split)[0])


@dataclass(frozen=True)
class Manifest:
    """Contents of ``manifest.json``, without its format and digest."""

    domains: tuple[DomainEntry, ...]
    """Sorted by name."""
    vocab_size: Annotated[int, partial(check_range, at_least=1, at_most=2**31)]
    """One more than the largest token id."""
    tokenizer_hash: Digest
    fingerprint: Digest
    """Digest of the tokenizer and of every document in its place: equal means equal tokens."""
    end_of_text: Count
    """Token id put after each document, and nowhere else."""
    token_type: TokenType
    inputs: Digest
    """Digest of the settings and the source that the store was made from."""
    files: dict[str, Digest] = field(repr=False, hash=False)
    """Digest of each file that is read later, by its path within the store."""
    left_out: tuple[FilesLeftOut, ...] = field(default=(), kw_only=True)
    """Files of the source that no domain holds."""


def is_store(folder: Path) -> bool:
    """Whether `prepare` made the folder, which may be damaged; a name alone does not tell."""
    if (folder / TOKENIZER).is_file() and any(folder.glob(f"domains/**/{INDEX}")):
        return True
    try:
        content = read_json_strictly(folder / MANIFEST)
    except (OSError, ValueError):
        return False
    marks = {"format", "fingerprint", "token_type"}
    return isinstance(content, dict) and marks <= content.keys()


def split_folder(domain: str, split: Split) -> PurePosixPath:
    """The litdata folder of a split, within the store."""
    return PurePosixPath("domains", domain, split)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; a ValueError names the key that is wrong."""
    content = _content(path)
    version = content.pop("format", None)
    if type(version) is not int or version != FORMAT:
        raise ValueError(f"format is {shown(version)}: this version of dograph reads {FORMAT}")
    manifest = from_dict(Manifest, content)
    check_range("end_of_text", manifest.end_of_text, below=manifest.vocab_size)
    names = [domain.name for domain in manifest.domains]
    if not names or names != sorted(set(names)):
        raise ValueError(f"domains are {shown(names)}: they must be sorted, each named once")
    check_levels(names, "domains")
    for domain in manifest.domains:
        if domain.derived is not None and domain.derived.origin not in names:
            raise ValueError(f"{domain.name}.derived.origin is {shown(domain.derived.origin)}")
    _check_files(manifest)
    return manifest


def _content(path: Path) -> dict[str, Any]:
    try:
        return read_verified(path)
    except ValueError:
        # A store of an earlier version has no digest; its format says so.
        content = read_json_strictly(path)
        if isinstance(content, dict) and content.get("format") in range(1, FORMAT):
            return content
        raise


def _check_files(manifest: Manifest) -> None:
    """Compare the names of files with the domains; chunks are compared with the indices later."""
    folders = [
        str(split_folder(domain.name, split))
        for domain in manifest.domains
        for split in domain.splits()
    ]
    endings = (f"/{INDEX}", ".ends", ".hashes")
    needed = {TOKENIZER, *(folder + ending for folder in folders for ending in endings)}
    chunks = {name for name in manifest.files if name.endswith(".bin")}
    if wrong := sorted((manifest.files.keys() - chunks) ^ needed):
        raise ValueError(f"files lacks, or should not have, {shown(wrong)}")
    for name in chunks:
        if name.rpartition("/")[0] not in folders:
            raise ValueError(f"files has {shown(name)}, which is in no split's folder")
