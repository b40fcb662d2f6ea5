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
from dograph.data.corpus.source import Source, cap_bytes, open_source
from dograph.data.corpus.store import Store
from dograph.data.corpus.tokenizer import load, tokenizer_hash, vocabulary_size
from dograph.errors import UserError, file_errors
from dograph.files.checksums import json_digest
from dograph.files.home import cache, expand_home
from dograph.terminal.screen import Screen

DEFAULTS = CorpusSettings()
GPT2_TOKENS = 50257
OF_TEXT = (
    "tokenizer",
    "vocab_size",
    "megabytes",
    "levels",
    "text_key",
    "skip_bad_rows",
    "validation_fraction",
)
"""Settings that decide what a store is made of, and change nothing about a prepared one."""


def find_prepared(settings: CorpusSettings) -> Store | None:
    """Open the store that `prepare` would return, if it exists; None if it would have to make one.

    Raises:
        UserError: as `prepare`, for a source that is missing and a store that does not fit it.
    """
    folder = expand_home(settings.source, "corpus.source")
    with file_errors(folder):
        bars = ProgressBars(Screen(), False)
        if is_store(folder):
            return open_source_store(folder.absolute(), settings, bars)
        check_exists(folder, settings)
        source = open_source(settings)
        inputs = inputs_digest(source, settings)
        path = store_path(source.name, settings, inputs)
        return reopen(path, inputs, source, bars) if is_store(path) else None


def expected_vocabulary(settings: CorpusSettings) -> int:
    """Tokens of the vocabulary that a store of these settings will have; of a trained one, most."""
    if settings.tokenizer == TRAIN_TOKENIZER:
        return settings.vocab_size
    if settings.tokenizer == GPT2_TOKENIZER:
        return GPT2_TOKENS
    return vocabulary_size(load(expand_home(settings.tokenizer, "corpus.tokenizer")))


def open_source_store(path: Path, settings: CorpusSettings, bars: ProgressBars) -> Store:
    """Open a store that is itself the source, and name settings that would have changed it.

    It must hold what the settings derive, made by the tokenizer that they name, if that is there.
    """
    store = Store.open(path)
    held = {entry.name: entry.derived for entry in store.domains}
    for name, derivation in settings.derivations().items():
        if held.get(name) != derivation:
            remedy = "set corpus.source to the text, or leave corpus.derived out"
            where = f"which the prepared store {path} does not hold"
            raise UserError(f"corpus.derived.{name} is {derivation}, {where}: {remedy}")
    _check_source_tokenizer(store, settings.tokenizer)
    if unused := [key for key in OF_TEXT if _differs(key, settings, store)]:
        given = ", ".join(f"corpus.{key} ({getattr(settings, key)})" for key in unused)
        used = f"corpus.source is the prepared store {path}, used as it is"
        ProgressBars(bars.console, True).note(f"{used}: without effect: {given}")
    return store


def _differs(key: str, settings: CorpusSettings, store: Store) -> bool:
    """Whether a setting was given, and the store does not agree with it or cannot tell."""
    value = getattr(settings, key)
    agrees = key == "vocab_size" and value == store.vocab_size
    if key == "tokenizer":  # a file's has been compared, and "train" is the default
        return value == GPT2_TOKENIZER and store.vocab_size != GPT2_TOKENS
    return value != getattr(DEFAULTS, key) and not agrees


def _check_source_tokenizer(store: Store, choice: str) -> None:
    """Refuse a store that another tokenizer made than the file that ``corpus.tokenizer`` names."""
    if choice in (TRAIN_TOKENIZER, GPT2_TOKENIZER):
        return
    path = expand_home(choice, "corpus.tokenizer")
    if path.is_file() and tokenizer_hash(load(path)) != tokenizer_hash(store.tokenizer()):
        raise UserError(
            f"corpus.tokenizer is {choice}, but corpus.source is the prepared store {store.path} "
            "of another one: leave corpus.tokenizer out, or set corpus.source to the text"
        )


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
