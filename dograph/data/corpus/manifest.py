"""The manifest's facts, each checked: a store may come from somebody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from dograph.data.corpus.chunks import INDEX, TOKEN_FORMATS
from dograph.data.corpus.domain_name import check_domain_name
from dograph.files.strict_json import shown, whole_number, with_keys

FORMAT = 2
"""Raised when a store of an earlier version of this code can no longer be read."""
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SPLITS: tuple[Split, ...] = ("train", "validation")
_DIGEST = re.compile(r"[0-9a-f]{32}", re.ASCII)
_LARGEST_VOCABULARY = 2**31

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class DomainEntry:
    """Counts of one domain; those without ``validation`` in their name are of the train split."""

    name: str
    documents: int
    validation_documents: int
    train_tokens: int
    validation_tokens: int
    bytes: int

    def counts(self, split: Split) -> tuple[int, int]:
        """(documents, tokens) of a split."""
        if split == "train":
            return self.documents, self.train_tokens
        return self.validation_documents, self.validation_tokens

    def splits(self) -> Iterator[Split]:
        """Those that hold a document."""
        return (split for split in SPLITS if self.counts(split)[0])


def split_folder(domain: str, split: Split) -> PurePosixPath:
    """The litdata folder of a split, within the store."""
    return PurePosixPath("domains", domain, split)


def checked_facts(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    """The manifest's facts as fields of a store.

    Args:
        facts: of its JSON, without the digest.
        path: of the manifest, for messages.

    Raises:
        ValueError: naming the key that is wrong.
    """
    if facts.get("format") != FORMAT or facts["format"] is True:
        raise ValueError(f"format {shown(facts.get('format'))}, this version reads {FORMAT}")
    texts = ("tokenizer_hash", "fingerprint", "inputs")
    others = {"format", "domains", "files", "vocab_size", "end_of_text", "token_type"}
    with_keys(facts, {*texts, *others}, "the manifest")
    for key in texts:
        _digest(facts[key], key)
    vocab_size = whole_number(facts["vocab_size"], "vocab_size", _LARGEST_VOCABULARY)
    whole_number(facts["end_of_text"], "end_of_text", vocab_size - 1)
    if facts["token_type"] not in tuple(TOKEN_FORMATS):
        raise ValueError(f"'token_type' is {shown(facts['token_type'])}")
    domains = _domains(facts["domains"], path)
    return {
        **{key: facts[key] for key in (*texts, "vocab_size", "end_of_text", "token_type")},
        "domains": domains,
        "files": _files(facts["files"], domains),
    }


def _domains(value: Any, path: Path) -> tuple[DomainEntry, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"'domains' is {shown(value)}, not a list of domains")
    domains = tuple(_domain(entry, path) for entry in value)
    names = [domain.name for domain in domains]
    if names != sorted(set(names)):
        raise ValueError("the domains are not sorted, or one is named twice")
    return domains


def _domain(value: Any, path: Path) -> DomainEntry:
    keys = {field.name for field in fields(DomainEntry)}
    name = with_keys(value, keys, "a domain")["name"]
    if not isinstance(name, str):
        raise ValueError(f"a domain's name is {shown(name)}")
    check_domain_name(name, path)
    counts = {key: whole_number(value[key], f"{name}: {key}") for key in keys - {"name"}}
    return DomainEntry(name=name, **counts)


def _files(value: Any, domains: tuple[DomainEntry, ...]) -> dict[str, str]:
    """The digests by path; chunks are checked against the index when that is read."""
    if not isinstance(value, dict):
        raise ValueError(f"'files' is {shown(value)}, not an object")
    folders = [split_folder(domain.name, split) for domain in domains for split in domain.splits()]
    needed = {TOKENIZER}
    for folder in folders:
        needed |= {f"{folder}/{INDEX}", f"{folder}.ends", f"{folder}.hashes"}
    chunks = {name for name in value if name.endswith(".bin")}
    if value.keys() - chunks != needed:
        wrong = sorted((value.keys() - chunks) ^ needed)
        raise ValueError(f"'files' lacks, or should not have, {shown(wrong)}")
    inside = {str(folder) for folder in folders}
    for name in chunks:
        if name.rpartition("/")[0] not in inside:
            raise ValueError(f"'files' has {shown(name)}, which is in no split")
    return {name: _digest(digest, name) for name, digest in value.items()}


def _digest(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"'{shown(name)}' is {shown(value)}, not a digest")
    return value
