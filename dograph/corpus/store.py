"""Prepared tokens on disk: one litdata folder per domain and split, and what is known of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from dograph.corpus.atomic import write_json
from dograph.corpus.chunks import INDEX, read_chunks
from dograph.corpus.tokenizer import load, tokenizer_hash
from dograph.errors import UserError

FORMAT = 1
"""Raised when a store of an earlier version of this code can no longer be read."""
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
PARTIAL = ".partial"

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


@dataclass(frozen=True)
class Store:
    """A complete store, as `prepare` leaves it.

    Token positions of a domain and split count through its chunks in the order of
    ``index.json``. A litdata block never spans two chunks: with blocks of N tokens, the last
    ``dim % N`` tokens of each chunk are skipped.
    """

    path: Path
    domains: tuple[DomainEntry, ...]
    """Sorted by name."""
    vocab_size: int
    """One more than the largest token id."""
    tokenizer_hash: str
    fingerprint: str
    """Digest of the tokenizer and of every document in its place: equal means equal tokens."""
    end_of_text: int
    """Token id put after each document, and nowhere else."""
    token_type: str
    """NumPy name of the stored integers."""
    inputs: str
    """Digest of the settings and the source that the store was made from."""

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a complete store.

        Raises:
            UserError: if it is missing, incomplete or damaged, naming the file and the remedy.
        """
        path = Path(path)
        manifest = path / MANIFEST
        remedy = "run `dograph prepare` on your recipe"
        if path.name.endswith(PARTIAL) or not manifest.is_file():
            unfinished = path.with_name(path.name + PARTIAL)
            if path.name.endswith(PARTIAL) or unfinished.is_dir():
                raise UserError(f"store {path} is incomplete; {remedy} to finish it.")
            raise UserError(f"store {path} has no {MANIFEST}; {remedy} to make it.")
        try:
            store = cls._from_manifest(path, json.loads(manifest.read_text(encoding="utf-8")))
            store._check_files()
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{manifest}: the store is damaged or of another version "
                f"({type(error).__name__}: {error}); delete {path}, then {remedy}."
            ) from error
        return store

    @classmethod
    def _from_manifest(cls, path: Path, manifest: dict[str, Any]) -> Store:
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        return cls(
            path=path,
            domains=tuple(DomainEntry(**entry) for entry in manifest["domains"]),
            vocab_size=int(manifest["vocab_size"]),
            tokenizer_hash=str(manifest["tokenizer_hash"]),
            fingerprint=str(manifest["fingerprint"]),
            end_of_text=int(manifest["end_of_text"]),
            token_type=str(manifest["token_type"]),
            inputs=str(manifest["inputs"]),
        )

    def write_manifest(self) -> None:
        """Write ``manifest.json``, which makes the folder a store."""
        fields = asdict(self)
        del fields["path"]
        write_json(self.path / MANIFEST, {"format": FORMAT, **fields})

    def entry(self, domain: str) -> DomainEntry:
        """The domain's counts.

        Raises:
            UserError: if the store has no such domain.
        """
        for entry in self.domains:
            if entry.name == domain:
                return entry
        names = [entry.name for entry in self.domains]
        raise UserError(f"store {self.path} has no domain '{domain}'; it has {names}.")

    def folder(self, domain: str, split: Split) -> Path:
        """The litdata folder of a split, for ``TokensLoader``.

        Raises:
            UserError: if the store has no such domain, or the split is empty.
        """
        if self._documents(self.entry(domain), split) == 0:
            raise UserError(
                f"store {self.path}: domain '{domain}' has no {split} documents; prepare it with "
                "another validation_fraction."
            )
        return self.path / "domains" / domain / split

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        return load(self.path / TOKENIZER)

    def check_tokenizer(self, path: Path | str) -> None:
        """Check that the tokenizer in a ``tokenizer.json`` gives the same tokens.

        Raises:
            UserError: if it does not.
        """
        other = tokenizer_hash(load(Path(path)))
        # Another release of tokenizers may write the same tokenizer differently.
        if other not in (self.tokenizer_hash, tokenizer_hash(self.tokenizer())):
            raise UserError(
                f"{path}: hash {other}, but store {self.path} was made with tokenizer "
                f"{self.tokenizer_hash}; use {self.path / TOKENIZER} or prepare the corpus anew."
            )

    def fingerprint_of(self, split: Split) -> str:
        """Digest of the tokenizer and of every document of one split in its place."""
        names = [entry.name for entry in self.domains]
        return fingerprint(self.path, self.tokenizer_hash, names, (split,))

    def document_ends(self, domain: str, split: Split) -> np.ndarray:
        """Memory-mapped int64: number of tokens up to and including each document's end of text.

        The token at position p belongs to document ``searchsorted(ends, p, side="right")``.
        """
        return _map(self.folder(domain, split).with_suffix(".ends"), "<i8")

    def document_hashes(self, domain: str, split: Split) -> np.ndarray:
        """Memory-mapped uint64: the first eight bytes of each document's hash, in order."""
        return _map(self.folder(domain, split).with_suffix(".hashes"), "<u8")

    @staticmethod
    def _documents(entry: DomainEntry, split: Split) -> int:
        return entry.documents if split == "train" else entry.validation_documents

    def _check_files(self) -> None:
        load(self.path / TOKENIZER)
        for entry in self.domains:
            for split, tokens in (
                ("train", entry.train_tokens),
                ("validation", entry.validation_tokens),
            ):
                documents = self._documents(entry, split)  # type: ignore[arg-type]
                if documents:
                    _check_split(self.path / "domains" / entry.name / split, documents, tokens)


def fingerprint(
    folder: Path,
    hash_of_tokenizer: str,
    domains: list[str],
    splits: tuple[Split, ...] = ("train", "validation"),
) -> str:
    """Digest of the tokenizer and of each domain's document hashes in their order."""
    digest = hashlib.blake2b(hash_of_tokenizer.encode(), digest_size=16)
    for domain in domains:
        for split in splits:
            path = folder / "domains" / domain / f"{split}.hashes"
            digest.update(f"\0{domain}\0{split}\0".encode())
            if path.exists():
                with path.open("rb") as file:
                    while block := file.read(2**20):
                        digest.update(block)
    return digest.hexdigest()


def _check_split(folder: Path, documents: int, tokens: int) -> None:
    """Compare sizes only: reading every token would take longer than some trainings."""
    chunks = read_chunks(folder)
    stored = sum(chunk["dim"] for chunk in chunks)
    if stored != tokens:
        raise ValueError(f"{folder / INDEX} lists {stored} tokens instead of {tokens}")
    expected = {folder / chunk["filename"]: chunk["chunk_bytes"] for chunk in chunks}
    for ending in (".ends", ".hashes"):
        expected[folder.with_suffix(ending)] = 8 * documents
    for path, size in expected.items():
        if path.stat().st_size != size:
            raise ValueError(f"{path} has {path.stat().st_size} bytes instead of {size}")


def _map(path: Path, kind: str) -> np.ndarray:
    return np.memmap(path, dtype=kind, mode="r")
