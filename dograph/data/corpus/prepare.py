"""Corpus → tokens on disk: stage the documents, make the tokenizer, tokenise, seal the store."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import shutil
import time
from pathlib import Path

from rich.console import Console
from tokenizers import Tokenizer

from dograph.data.corpus.manifest import FORMAT, MANIFEST, SPLITS, TOKENIZER, DomainEntry, Split
from dograph.data.corpus.report import Display, closing_table
from dograph.data.corpus.settings import (
    ENVIRONMENT,
    GPT2_TOKENIZER,
    TRAIN_TOKENIZER,
    CorpusSettings,
)
from dograph.data.corpus.source import Source, cap_bytes, open_source
from dograph.data.corpus.staging import StagedDomain, Staging
from dograph.data.corpus.store import Store, fingerprint
from dograph.data.corpus.tokenize_process import Packer
from dograph.data.corpus.tokenize_worker import Packed, Packing, marker_path
from dograph.data.corpus.tokenizer import (
    end_of_text,
    load,
    make_tokenizer,
    token_type,
    tokenizer_hash,
    vocabulary_size,
)
from dograph.data.corpus.work_dir import INPUTS, claim_partial, disk_errors
from dograph.errors import UserError, file_errors
from dograph.files.atomic import flush_folder, flush_tree
from dograph.files.checksums import facts_digest, file_digest, read_marker, write_sealed
from dograph.files.lock import exclusive

TOKENIZER_MARKER = ".tokenizer.json"
"""Like no domain's marker."""


def prepare(settings: CorpusSettings, *, progress: bool = True) -> Store:
    """Make the store that the settings describe, or open it if it is there already.

    The work happens in ``<store>.partial``, which becomes ``<store>`` in one step at the end. An
    interrupted run is taken up by the next one at the domain it had reached. A second run of the
    same store waits for the first. A source that is a prepared store is opened as it is.

    Args:
        settings: what to prepare and where to.
        progress: show progress bars. The closing table of a new store is always printed.

    Raises:
        UserError: if an input is missing or damaged, a domain is empty, the store was made from
            other inputs, or the system refuses a file.
    """
    folder = Path(settings.source).expanduser()
    with file_errors(folder):
        if (folder / MANIFEST).is_file():
            return Store.open(folder.absolute())
        _check_there(folder, settings)
        source = open_source(settings)
        if settings.tokenizer not in (TRAIN_TOKENIZER, GPT2_TOKENIZER):
            load(Path(settings.tokenizer).expanduser())  # a wrong path should show at once
        inputs = inputs_digest(source, settings)
        path = store_path(source.name, settings, inputs)
        if (path / MANIFEST).is_file() and not os.access(path.parent, os.W_OK):
            return _reopen(path, inputs)  # a whole store, where nobody can make or lock one
    return _made(path, inputs, source, settings, progress)


def _made(
    path: Path, inputs: str, source: Source, settings: CorpusSettings, progress: bool
) -> Store:
    """The store, made now or meanwhile."""
    display = Display(Console(), progress)
    lock_file = path.with_name(path.name + ".lock")

    def say_waiting() -> None:
        display.note(f"another run is preparing {path}; waiting for it")

    with disk_errors(path), exclusive(lock_file, say_waiting) as lock:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            return _reopen(path, inputs)
        partial = claim_partial(path, inputs)
        if not (partial / MANIFEST).exists():
            with display.running():
                _Build(partial, source, settings, display, lock).run(inputs)
        _seal(partial, path)
    store = Store.open(path)
    display.console.print(closing_table(store))
    return store


def store_path(name: str, settings: CorpusSettings, inputs: str) -> Path:
    """Where the store of a source of that name is or will be."""
    if settings.store is not None:
        return Path(settings.store).expanduser().absolute()
    return _cache() / f"{name}-{inputs[:12]}"


def _cache() -> Path:
    cache = os.environ.get("DOGRAPH_CACHE") or Path.home() / ".cache" / "dograph"
    return Path(cache).expanduser().absolute()


def _check_there(source: Path, settings: CorpusSettings) -> None:
    """Raises UserError for a source that is gone, with the store that was prepared from it."""
    if settings.source == ENVIRONMENT or source.exists():
        return
    given = settings.store and Path(settings.store).expanduser().absolute()
    stores = [given] if given else sorted(_cache().glob(f"{glob.escape(source.name)}-*"))
    kept = next((store for store in stores if (store / MANIFEST).is_file()), None)
    if kept is not None:
        raise UserError(
            f"corpus source {source} is gone: put it back, its files with their times of change; "
            f"or set corpus.source={kept} for the tokens that are prepared, as they are"
        )


def inputs_digest(source: Source, settings: CorpusSettings) -> str:
    """Digest of all that the store depends on, cheap enough to compute at every start."""
    tokenizer = settings.tokenizer
    if tokenizer not in (TRAIN_TOKENIZER, GPT2_TOKENIZER):
        tokenizer = tokenizer_hash(load(Path(tokenizer).expanduser()))
    described = {
        "format": FORMAT,
        "source": source.identity(),
        "caps": {domain: cap_bytes(source, domain, settings) for domain in source.domains()},
        "tokenizer": tokenizer,
        "vocab_size": settings.vocab_size if tokenizer == TRAIN_TOKENIZER else None,
        "validation_fraction": settings.validation_fraction,
        "workers": settings.workers,
    }
    return facts_digest(described)


class _Build:
    """The steps of one run, in a folder that may hold an earlier run's work."""

    def __init__(
        self, folder: Path, source: Source, settings: CorpusSettings, display: Display, lock: int
    ) -> None:
        self._folder = folder
        self._source = source
        self._settings = settings
        self._display = display
        self._lock = lock

    def run(self, inputs: str) -> None:
        """Do what is left to do, and write the manifest."""
        with Packer(self._folder / "packing.log", self._lock) as packer:
            domains = self._stage()
            tokenizer = self._tokenizer(domains)
            self._tokenise(packer, domains, tokenizer)
        self._manifest(domains, tokenizer, inputs)

    def _stage(self) -> list[StagedDomain]:
        source, staged = self._source, []
        caps = {name: cap_bytes(source, name, self._settings) for name in source.domains()}
        known = [cap for cap in caps.values() if cap is not None]
        total = sum(known) if len(known) == len(caps) else None
        staging = Staging(self._folder, self._settings.validation_fraction)
        with contextlib.closing(staging), self._display.step("stage", total) as advance:
            for name, cap in caps.items():
                documents = functools.partial(source.documents, name)
                staged.append(staging.domain(name, documents, cap, source.where(name), advance))
        return staged

    def _tokenizer(self, domains: list[StagedDomain]) -> Tokenizer:
        path = self._folder / TOKENIZER
        marker = self._folder / "packed" / TOKENIZER_MARKER
        if not path.exists() or read_marker(marker) != {TOKENIZER: file_digest(path)}:
            with self._display.step("tokenizer", None):
                tokenizer = make_tokenizer(
                    self._settings.tokenizer, self._settings.vocab_size, self._folder, domains
                )
                end_of_text(tokenizer)
                beside = path.with_suffix(".new")
                # Not by its own `save`, which raises a bare Exception if the disk is full.
                beside.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
                beside.replace(path)
                write_sealed(marker, {TOKENIZER: file_digest(path)})
        return load(path)

    def _tokenise(self, packer: Packer, domains: list[StagedDomain], tokenizer: Tokenizer) -> None:
        packings = []
        for domain in domains:
            for name in SPLITS:
                split = domain.split(name)
                packing = Packing(
                    folder=str(self._folder),
                    domain=domain.name,
                    split=name,
                    parts=split.parts,
                    documents=split.documents,
                    hashes=split.hashes,
                    token_type=token_type(vocabulary_size(tokenizer)),
                    end_of_text=end_of_text(tokenizer),
                    workers=self._settings.workers,
                )
                if split.parts and Packed.read(packing.marker) is None:
                    packings.append((packing, split.bytes))
        total = sum(size for _, size in packings)
        begin = time.monotonic()
        with self._display.step("tokenise", total) as advance:
            packer.run(self._folder, [packing for packing, _ in packings], advance)
        seconds = time.monotonic() - begin
        self._display.note(
            f"tokenised {total / 1e6:.1f} MB in {seconds:.1f} s: {total / 1e6 / seconds:.1f} MB/s"
        )

    def _manifest(self, domains: list[StagedDomain], tokenizer: Tokenizer, inputs: str) -> None:
        hash_of_tokenizer = tokenizer_hash(tokenizer)
        files = {TOKENIZER: file_digest(self._folder / TOKENIZER)}
        entries = []
        for domain in domains:
            packed = {split: self._packed(domain, split) for split in SPLITS}
            entries.append(_entry(domain, packed))
            for each in packed.values():
                files |= each.files
        Store(
            path=self._folder,
            domains=tuple(entries),
            vocab_size=vocabulary_size(tokenizer),
            tokenizer_hash=hash_of_tokenizer,
            fingerprint=fingerprint(
                self._folder, hash_of_tokenizer, [domain.name for domain in domains]
            ),
            end_of_text=end_of_text(tokenizer),
            token_type=token_type(vocabulary_size(tokenizer)),
            inputs=inputs,
            files=files,
        ).write_manifest()

    def _packed(self, domain: StagedDomain, split: str) -> Packed:
        if not domain.split(split).parts:
            return Packed(0, {})
        packed = Packed.read(marker_path(self._folder, domain.name, split))
        if packed is None:
            raise RuntimeError(f"{self._folder}: {domain.name}'s {split} split was not packed")
        return packed


def _entry(domain: StagedDomain, packed: dict[Split, Packed]) -> DomainEntry:
    return DomainEntry(
        name=domain.name,
        documents=domain.train.documents,
        validation_documents=domain.validation.documents,
        train_tokens=packed["train"].tokens,
        validation_tokens=packed["validation"].tokens,
        bytes=domain.train.bytes,
    )


def _reopen(path: Path, inputs: str) -> Store:
    if not (path / MANIFEST).is_file():
        raise UserError(
            f"{path} is there, but is no store of ours; set corpus.store to another folder."
        )
    store = Store.open(path)
    if store.inputs != inputs:
        raise UserError(
            f"store {path} was made from other inputs (source files, tokenizer or settings have "
            "changed); set corpus.store to another folder, or delete this one and prepare again."
        )
    return store


def _seal(partial: Path, path: Path) -> None:
    """Drop what only the making needed, and give the folder its name."""
    for name in ("staged", "packed", "litdata"):
        shutil.rmtree(partial / name, ignore_errors=True)
    (partial / "packing.log").unlink(missing_ok=True)
    flush_tree(partial)
    partial.replace(path)
    # Only now: an interruption before would let the next run take the folder for another's.
    (path / INPUTS).unlink()
    flush_folder(path.parent)
