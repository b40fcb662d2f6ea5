"""Prepared tokens on disk: one litdata folder per domain and split, and what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from dograph.data.corpus.chunks import INDEX, Chunk, read_chunks
from dograph.data.corpus.manifest import (
    FORMAT,
    MANIFEST,
    SPLITS,
    TOKENIZER,
    DomainEntry,
    Split,
    checked_facts,
    split_folder,
)
from dograph.data.corpus.tokenizer import load, token_type, tokenizer_hash, vocabulary_size
from dograph.data.corpus.verified_file import (
    ChunkLook,
    EndsLook,
    Look,
    SealedFile,
    damaged,
    look_at_bytes,
)
from dograph.errors import UserError
from dograph.files.checksums import file_digest, read_sealed, write_sealed
from dograph.files.strict_json import first_link, read_json_strictly

PARTIAL = ".partial"


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
    files: Mapping[str, str] = field(repr=False, hash=False)
    """Digest of each file that is read later, by its path within the store."""

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a complete store.

        The manifest, each ``index.json`` and the tokenizer are read and compared with their
        digests; of the other files the size is. These are compared when they are first read.

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
            link = first_link(path)
            if link is not None:
                raise damaged(path, link, "a store holds plain files only, no links")
            facts = checked_facts(_facts(manifest), manifest)
        except (ValueError, OSError) as error:
            raise _named(path, manifest, error) from error
        store = cls(path=path, **facts)
        store._check_tokenizer()
        for entry in store.domains:
            for split in entry.splits():
                store._check_sizes(entry, split)
        return store

    def write_manifest(self) -> None:
        """Write ``manifest.json``, which makes the folder a store."""
        fields = asdict(self)
        del fields["path"]
        write_sealed(self.path / MANIFEST, {"format": FORMAT, **fields})

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
        if self.entry(domain).counts(split)[0] == 0:
            raise UserError(
                f"store {self.path}: domain '{domain}' has no {split} documents; prepare it with "
                "another validation_fraction."
            )
        return self.path / split_folder(domain, split)

    def chunks(self, domain: str, split: Split) -> list[Chunk]:
        """What the split's index says of its chunks, in the order of the tokens.

        Raises:
            UserError: if the index is damaged, or the split is empty.
        """
        path = self.folder(domain, split) / INDEX
        try:
            self._compare(path)
            return read_chunks(path.parent, self.token_type)
        except (OSError, ValueError) as error:
            raise _named(self.path, path, error) from error

    def sealed_chunks(self, domain: str, split: Split) -> list[SealedFile]:
        """The split's chunks as files to be checked before they are read, in their order.

        Raises:
            UserError: if the index is damaged, or the split is empty.
        """
        folder = self.folder(domain, split)
        return [
            self._sealed(
                folder / chunk.filename,
                chunk.chunk_bytes,
                ChunkLook(chunk, self.token_type, self.vocab_size),
            )
            for chunk in self.chunks(domain, split)
        ]

    def sealed_ends(self, domain: str, split: Split) -> SealedFile:
        """The file of `document_ends`, to be checked before it is read.

        Raises:
            UserError: if the store has no such domain, or the split is empty.
        """
        documents, tokens = self.entry(domain).counts(split)
        path = self.folder(domain, split).with_name(f"{split}.ends")
        return self._sealed(path, 8 * documents, EndsLook(tokens))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens.

        Raises:
            UserError: if its file is damaged.
        """
        path = self.path / TOKENIZER
        try:
            self._compare(path)
            return load(path)
        except (OSError, ValueError) as error:
            raise _named(self.path, path, error) from error

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
        for entry in self.domains:
            if split in entry.splits():
                self._sealed_hashes(entry.name, split).check()
        names = [entry.name for entry in self.domains]
        return fingerprint(self.path, self.tokenizer_hash, names, (split,))

    def document_ends(self, domain: str, split: Split) -> np.ndarray:
        """Memory-mapped int64: number of tokens up to and including each document's end of text.

        The token at position p belongs to document ``searchsorted(ends, p, side="right")``.

        Raises:
            UserError: if the file is damaged, or the split is empty.
        """
        return _map(self.sealed_ends(domain, split), "<i8")

    def document_hashes(self, domain: str, split: Split) -> np.ndarray:
        """Memory-mapped uint64: the first eight bytes of each document's hash, in order.

        Raises:
            UserError: if the file is damaged, or the split is empty.
        """
        return _map(self._sealed_hashes(domain, split), "<u8")

    def _sealed_hashes(self, domain: str, split: Split) -> SealedFile:
        path = self.folder(domain, split).with_name(f"{split}.hashes")
        return self._sealed(path, 8 * self.entry(domain).counts(split)[0], look_at_bytes)

    def _sealed(self, path: Path, size: int, look: Look) -> SealedFile:
        return SealedFile(self.path, path, self._digest_of(path), size, look)

    def _digest_of(self, path: Path) -> str:
        return self.files[path.relative_to(self.path).as_posix()]

    def _compare(self, path: Path) -> None:
        if file_digest(path) != self._digest_of(path):
            raise ValueError("its checksum does not fit")

    def _check_tokenizer(self) -> None:
        size = vocabulary_size(self.tokenizer())
        if (size, token_type(size)) != (self.vocab_size, self.token_type):
            why = f"{size} tokens in {TOKENIZER}, but {self.vocab_size} as {self.token_type}"
            raise damaged(self.path, self.path / MANIFEST, why)

    def _check_sizes(self, entry: DomainEntry, split: Split) -> None:
        """Compare sizes only: reading every token would take longer than some trainings."""
        documents, tokens = entry.counts(split)
        folder = self.folder(entry.name, split)
        chunks = self.chunks(entry.name, split)
        sizes = {folder / chunk.filename: chunk.chunk_bytes for chunk in chunks}
        named = {name for name in self.files if name.startswith(f"domains/{entry.name}/{split}/")}
        listed = {path.relative_to(self.path).as_posix() for path in (*sizes, folder / INDEX)}
        if named != listed:
            wrong = sorted(named ^ listed)
            raise damaged(self.path, folder / INDEX, f"{wrong} is not in both it and {MANIFEST}")
        for what, said in (("dim", tokens), ("chunk_size", documents)):
            stored = sum(getattr(chunk, what) for chunk in chunks)
            if stored != said:
                why = f"it lists {what} {stored}, {MANIFEST} {said}"
                raise damaged(self.path, folder / INDEX, why)
        for ending in (".ends", ".hashes"):
            sizes[folder.with_name(split + ending)] = 8 * documents
        for path, size in sizes.items():
            _check_size(self.path, path, size)


def fingerprint(
    folder: Path,
    hash_of_tokenizer: str,
    domains: list[str],
    splits: tuple[Split, ...] = SPLITS,
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


def _facts(manifest: Path) -> dict[str, Any]:
    """The manifest's facts; a store of an earlier version has no digest, and is told so."""
    try:
        return read_sealed(manifest)
    except ValueError:
        older = read_json_strictly(manifest)
        if isinstance(older, dict) and older.get("format") in range(1, FORMAT):
            return older
        raise


def _named(store: Path, file: Path, error: Exception) -> UserError:
    """The error as one that names the file; an error that says so itself is kept."""
    return error if isinstance(error, UserError) else damaged(store, file, error)


def _check_size(store: Path, path: Path, size: int) -> None:
    try:
        found = path.lstat().st_size
    except OSError as error:
        raise damaged(store, path, error) from error
    if found != size:
        raise damaged(store, path, f"it has {found} bytes instead of {size}")


def _map(file: SealedFile, kind: str) -> np.ndarray:
    file.check()
    return np.memmap(file.path, dtype=kind, mode="r")
