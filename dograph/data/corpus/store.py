"""Prepared tokens on disk: one litdata folder per domain and split, and their manifest."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
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
    Manifest,
    Split,
    is_store,
    read_manifest,
    split_folder,
)
from dograph.data.corpus.tokenizer import load, token_type, vocabulary_size
from dograph.data.corpus.verified_file import (
    Check,
    VerifiedFile,
    check_chunk,
    check_document_ends,
    damaged,
)
from dograph.errors import UserError
from dograph.files.checksums import BLOCK, write_verified
from dograph.files.home import cache
from dograph.files.strict_json import first_link
from dograph.terminal.tables import as_html

_UNFINISHED = ".partial"


def work_dir_of(store: Path) -> Path:
    """The folder in which a store is made."""
    return store.with_name(store.name + _UNFINISHED)


def find_store(recorded: Path, tokens: str) -> Path | None:
    """The store of a fingerprint: where a run recorded it, else in the cache; None without one.

    A run that was copied from another machine names a path that may not exist here, and what is
    there now may be another store.
    """
    try:
        kept = [path.parent for path in cache().glob(f"*/{MANIFEST}")]
    except UserError:  # without a home directory there is no cache
        kept = []
    kept.sort(key=lambda store: (store.name != recorded.name, store.name))
    whole = [store for store in kept if not store.name.endswith(_UNFINISHED)]
    for store in (recorded, *whole):
        try:
            if read_manifest(store / MANIFEST).fingerprint == tokens:
                return store
        except (ValueError, OSError):  # gone, of another version, or damaged
            continue
    return None


@dataclass(frozen=True)
class Store(Manifest):
    """A complete store, as `prepare` leaves it.

    Token positions of a domain and split count through its chunks in the order of
    ``index.json``. A litdata block never spans two chunks: with blocks of N tokens, the last
    ``dim % N`` tokens of each chunk are skipped.

    A domain that the store lacks, a split without documents, and a file that is missing or damaged
    are `UserError`s that name it and the remedy.
    """

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a complete store.

        Reads the manifest, each ``index.json`` and the tokenizer and compares their digests.
        Compares the other files' sizes; their digests are compared when they are first read.
        """
        path = Path(path)
        manifest = path / MANIFEST
        _check_complete(path)
        try:
            link = first_link(path)
            if link is None:
                store = cls(path=path, **vars(read_manifest(manifest)))
        except (ValueError, OSError) as error:
            raise damaged(path, manifest, error) from error
        if link is not None:
            raise damaged(path, link, "a store holds only regular files, no links")
        store._check_tokenizer()
        for entry in store.domains:
            for split in entry.splits():
                store._check_split(entry, split)
        return store

    @property
    def validates(self) -> bool:
        """Whether any text is held out, as is not where ``corpus.validation_fraction`` was 0."""
        return any(entry.validation_documents for entry in self.domains)

    def records(self) -> list[dict[str, Any]]:
        """Counts of every domain's documents and tokens, for ``pandas.DataFrame``."""
        own = ("name", "documents", "train_tokens", "validation_documents", "validation_tokens")
        return [{key: getattr(entry, key) for key in own} for entry in self.domains]

    def _repr_html_(self) -> str:
        """The table of `dograph prepare`, in a notebook."""
        from dograph.data.corpus.report import closing_table

        return as_html(closing_table(self))

    def write_manifest(self) -> None:
        """Write ``manifest.json``, which makes the folder a store."""
        content = asdict(self)
        del content["path"]
        write_verified(self.path / MANIFEST, {"format": FORMAT, **content})

    def entry(self, domain: str) -> DomainEntry:
        """A domain's counts."""
        entries = {entry.name: entry for entry in self.domains}
        if domain not in entries:
            raise UserError(f"store {self.path} has no domain '{domain}': it has {[*entries]}")
        return entries[domain]

    def folder(self, domain: str, split: Split) -> Path:
        """The litdata folder of a split."""
        if self.entry(domain).counts(split)[0] == 0:
            raise UserError(
                f"store {self.path}: domain '{domain}' has no {split} documents: prepare it with "
                "corpus.validation_fraction above 0, in another corpus.store"
            )
        return self.path / split_folder(domain, split)

    def chunks(self, domain: str, split: Split) -> list[Chunk]:
        """A split's chunks, in the order of the tokens."""
        path = self.folder(domain, split) / INDEX
        self._verified(path).check()
        try:
            return read_chunks(path.parent, self.token_type)
        except (OSError, ValueError) as error:
            raise damaged(self.path, path, error) from error

    def chunk_files(self, domain: str, split: Split) -> list[VerifiedFile]:
        """A split's chunks, in their order, to be checked before they are read."""
        folder = self.folder(domain, split)
        check = partial(check_chunk, token_type=self.token_type, vocab_size=self.vocab_size)
        return [
            self._verified(folder / chunk.filename, chunk.chunk_bytes, partial(check, chunk=chunk))
            for chunk in self.chunks(domain, split)
        ]

    def ends_file(self, domain: str, split: Split) -> VerifiedFile:
        """The file of `document_ends`, to be checked before it is read."""
        documents, tokens = self.entry(domain).counts(split)
        path = self.folder(domain, split).with_name(f"{split}.ends")
        return self._verified(path, 8 * documents, partial(check_document_ends, tokens=tokens))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        path = self.path / TOKENIZER
        self._verified(path).check()
        return load(path)

    def fingerprint_of(self, split: Split) -> str:
        """Digest of the tokenizer and of every document of one split in its place."""
        for entry in self.domains:
            if split in entry.splits():
                self._hashes_file(entry.name, split).check()
        names = [entry.name for entry in self.domains]
        return fingerprint(self.path, self.tokenizer_hash, names, (split,))

    def document_ends(self, domain: str, split: Split) -> np.ndarray:
        """Memory-mapped int64: number of tokens up to and including each document's end of text.

        The token at position p belongs to document ``searchsorted(ends, p, side="right")``.
        """
        return _map(self.ends_file(domain, split), "<i8")

    def document_hashes(self, domain: str, split: Split) -> np.ndarray:
        """Memory-mapped uint64: the first eight bytes of each document's hash, in order."""
        return _map(self._hashes_file(domain, split), "<u8")

    def _hashes_file(self, domain: str, split: Split) -> VerifiedFile:
        path = self.folder(domain, split).with_name(f"{split}.hashes")
        return self._verified(path, 8 * self.entry(domain).counts(split)[0])

    def _verified(
        self, path: Path, size: int | None = None, check: Check | None = None
    ) -> VerifiedFile:
        digest = self.files[path.relative_to(self.path).as_posix()]
        return VerifiedFile(self.path, path, digest, size, check)

    def _check_tokenizer(self) -> None:
        size = vocabulary_size(self.tokenizer())
        if (size, token_type(size)) != (self.vocab_size, self.token_type):
            why = f"{size} tokens in {TOKENIZER}, but {self.vocab_size} as {self.token_type}"
            raise damaged(self.path, self.path / MANIFEST, why)

    def _check_split(self, entry: DomainEntry, split: Split) -> None:
        """Compare only sizes: reading every token would take longer than some trainings."""
        folder = self.folder(entry.name, split)
        chunks = self.chunks(entry.name, split)
        self._check_index(entry, split, chunks)
        sizes = {folder / chunk.filename: chunk.chunk_bytes for chunk in chunks}
        for ending in (".ends", ".hashes"):
            sizes[folder.with_name(split + ending)] = 8 * entry.counts(split)[0]
        for path, size in sizes.items():
            try:
                stored = path.lstat().st_size
            except OSError as error:
                raise damaged(self.path, path, error) from error
            if stored != size:
                raise damaged(self.path, path, f"it has {stored} bytes instead of {size}")

    def _check_index(self, entry: DomainEntry, split: Split, chunks: list[Chunk]) -> None:
        """Compare a split's index with the manifest."""
        index = self.folder(entry.name, split) / INDEX
        inside = f"domains/{entry.name}/{split}/"
        in_manifest = {name for name in self.files if name.startswith(inside)}
        in_index = {inside + name for name in (INDEX, *(chunk.filename for chunk in chunks))}
        if wrong := sorted(in_manifest ^ in_index):
            raise damaged(self.path, index, f"{wrong} is not in both it and {MANIFEST}")
        documents, tokens = entry.counts(split)
        for key, count in (("dim", tokens), ("chunk_size", documents)):
            stored = sum(getattr(chunk, key) for chunk in chunks)
            if stored != count:
                why = f"its {key} sums to {stored}, but {MANIFEST} has {count}"
                raise damaged(self.path, index, why)


def _check_complete(path: Path) -> None:
    """Refuse a folder without a manifest, and one in which a store is being made."""
    remedy = "run `dograph prepare` on your recipe"
    is_unfinished = path.name.endswith(_UNFINISHED)
    if not is_unfinished and is_store(path):
        if (path / MANIFEST).exists():
            return
        raise damaged(path, path / MANIFEST, "it is missing")
    if is_unfinished or work_dir_of(path).is_dir():
        raise UserError(f"store {path} is incomplete: {remedy} to finish it")
    why = f"a {MANIFEST} that is not dograph's" if (path / MANIFEST).exists() else f"no {MANIFEST}"
    raise UserError(f"store {path} has {why}: {remedy} and give the path that it prints")


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
                    while block := file.read(BLOCK):
                        digest.update(block)
    return digest.hexdigest()


def _map(file: VerifiedFile, kind: str) -> np.ndarray:
    file.check()
    return np.memmap(file.path, dtype=kind, mode="r")
