"""Stores that exist already: where they are, and whether they are what the settings describe."""

from __future__ import annotations

import glob
from pathlib import Path

from dograph.data.corpus.manifest import FORMAT, is_store
from dograph.data.corpus.report import ProgressBars, left_out_lines
from dograph.data.corpus.settings import (
    ENVIRONMENT,
    GPT2_TOKENIZER,
    TRAIN_TOKENIZER,
    CorpusSettings,
)
from dograph.data.corpus.source import Source, cap_bytes
from dograph.data.corpus.store import Store
from dograph.data.corpus.tokenizer import load, tokenizer_hash
from dograph.errors import UserError
from dograph.files.checksums import json_digest
from dograph.files.home import cache, expand_home


def open_source_store(path: Path, settings: CorpusSettings) -> Store:
    """Open a store that is itself the source; it must hold what the settings derive."""
    store = Store.open(path)
    held = {entry.name: entry.derived for entry in store.domains}
    for name, derivation in settings.derivations().items():
        if held.get(name) != derivation:
            remedy = "set corpus.source to the text, or leave corpus.derived out"
            where = f"which the prepared store {path} does not hold"
            raise UserError(f"corpus.derived.{name} is {derivation}, {where}: {remedy}")
    return store


def reopen(path: Path, inputs: str, source: Source, bars: ProgressBars) -> Store:
    """Open a store that was prepared before, and name the files that its source leaves out."""
    if not is_store(path):
        raise UserError(
            f"corpus.store is {path}, which exists and is not a store: set corpus.store to another "
            "folder"
        )
    store = Store.open(path)
    if store.inputs != inputs:
        raise UserError(
            f"corpus.store is {path}, which was made from other inputs (source files, tokenizer or "
            "settings have changed): set corpus.store to another folder, or move this one away and "
            "prepare again"
        )
    for line in left_out_lines((), source.left_out):
        bars.note(line)
    return store


def check_exists(source: Path, settings: CorpusSettings) -> None:
    """Refuse a source that is gone, and name the store that was prepared from it."""
    if settings.source == ENVIRONMENT or source.exists():
        return
    given = settings.store and expand_home(settings.store, "corpus.store").absolute()
    stores = [given] if given else sorted(cache().glob(f"{glob.escape(source.name)}-*"))
    kept = next((store for store in stores if is_store(store)), None)
    if kept is not None:
        raise UserError(
            f"corpus.source is {source}, which is gone: put it back, with its files' modification "
            f"times, or set corpus.source={kept} to use the prepared tokens as they are"
        )


def store_path(name: str, settings: CorpusSettings, inputs: str) -> Path:
    """Where the store of a source, given its name, is or will be."""
    if settings.store is not None:
        return expand_home(settings.store, "corpus.store").absolute()
    return cache() / f"{name}-{inputs[:12]}"


def inputs_digest(source: Source, settings: CorpusSettings) -> str:
    """Digest of everything that the store depends on, quick enough for every start."""
    tokenizer = settings.tokenizer
    if tokenizer not in (TRAIN_TOKENIZER, GPT2_TOKENIZER):
        tokenizer = tokenizer_hash(load(expand_home(tokenizer, "corpus.tokenizer")))
    described = {
        "format": FORMAT,
        "source": source.identity(),
        "caps": {domain: cap_bytes(source, domain, settings) for domain in source.domains()},
        "tokenizer": tokenizer,
        "vocab_size": settings.vocab_size if tokenizer == TRAIN_TOKENIZER else None,
        "validation_fraction": settings.validation_fraction,
        "workers": settings.workers,
    }
    if settings.derived:
        described["derived"] = {name: str(made) for name, made in settings.derivations().items()}
    return json_digest(described)
