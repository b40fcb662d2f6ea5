"""A checkpoint's model with the text to evaluate it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dograph.data.corpus.manifest import MANIFEST, TOKENIZER
from dograph.data.corpus.store import Store
from dograph.data.corpus.tokenizer import tokenizer_hash
from dograph.errors import UserError, check_range
from dograph.evaluation.run_source import RunSource, find_checkpoint, find_run_source
from dograph.files.run_dir import FINAL_CHECKPOINT, PROVENANCE
from dograph.mixers.target import Target
from dograph.training.checkpoint_reader import (
    CheckpointIdentity,
    content_digest,
    load_model,
    steps_done,
    trained_context,
)
from dograph.training.language_model import LanguageModel


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and a store with the same tokens.

    Attributes:
        model: frozen, in float32, on the device it is evaluated on.
        context: tokens that the model sees at once.
        source: the checkpoint's run; None if no file beside it says.
        identity: of the checkpoint, when it was loaded.
    """

    checkpoint: Path
    model: LanguageModel
    store: Store
    context: int
    source: RunSource | None
    identity: CheckpointIdentity

    @property
    def on_own_corpus(self) -> bool | None:
        """Whether the store is the one that the run trained on; None if nothing says."""
        return None if self.source is None else self.store.fingerprint == self.source.fingerprint

    @property
    def target(self) -> Target | None:
        """The run's target; None if nothing says, or the store lacks one of its domains."""
        if self.source is None:
            return None
        try:
            self.source.target.check([entry.name for entry in self.store.domains])
        except UserError:
            return None
        return self.source.target

    @property
    def final_of(self) -> Path | None:
        """The run directory if this is its final checkpoint, else None."""
        if self.source is None:
            return None
        final = (self.source.folder / FINAL_CHECKPOINT).resolve()
        return self.source.folder if self.checkpoint.resolve() == final else None

    @property
    def run(self) -> Path | None:
        """The run directory if this is its final checkpoint, on its own corpus and context."""
        own = self.on_own_corpus and self.source and self.context == self.source.data["context"]
        return self.final_of if own else None


def open_evaluated(
    path: Path, corpus: Path | None = None, context: int | None = None, device: str = "auto"
) -> EvaluatedModel:
    """Loads a checkpoint, and opens the store to evaluate it on.

    Args:
        path: a checkpoint or a run directory.
        corpus: a prepared store with the run's tokenizer. None: the run's own.
        context: tokens per sequence, ≥ 1. None: the run's, or that of a lone checkpoint's
            DataMixer, or all that its model takes.
        device: torch's name of a device, or "auto".
    """
    checkpoint = find_checkpoint(path)
    source = find_run_source(checkpoint)
    if corpus is None and source is None:
        raise UserError(
            f"{checkpoint}: no {PROVENANCE} beside it says what it was trained on: name a "
            "prepared store with --corpus STORE"
        )
    digest = content_digest(checkpoint)
    model = load_model(checkpoint)
    identity = CheckpointIdentity(steps_done(checkpoint), digest)
    context = context or (None if source else trained_context(checkpoint))
    store = _own_store(source) if corpus is None and source else Store.open(str(corpus))
    _check_tokens(checkpoint, model, store, source)
    chosen = _context(checkpoint, model, context, source)
    return EvaluatedModel(
        checkpoint, model.to(pick_device(device)), store, chosen, source, identity
    )


def pick_device(name: str) -> torch.device:
    """The named device; "auto" is CUDA if available, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def _own_store(source: RunSource) -> Store:
    if not (source.corpus / MANIFEST).is_file():
        raise UserError(
            f"{source.folder} was trained on the store {source.corpus}, which is not here, and no "
            f"store in the cache has its fingerprint {source.fingerprint}: copy it from the other "
            "machine, or prepare its text here, and name it with --corpus STORE"
        )
    store = Store.open(source.corpus)
    if store.fingerprint != source.fingerprint:
        raise UserError(
            f"store {store.path} has changed since the run {source.folder} (fingerprint "
            f"{store.fingerprint}, then {source.fingerprint}): prepare the run's text again, or "
            f"name a store with --corpus; {store.path} then counts as another corpus"
        )
    return store


def _check_tokens(
    checkpoint: Path, model: LanguageModel, store: Store, source: RunSource | None
) -> None:
    if source is not None and not _same_tokenizer(store, source):
        kept = _has_tokenizer(source)
        remedy = f"corpus.tokenizer={source.corpus / TOKENIZER}" if kept else "that tokenizer"
        raise UserError(
            f"store {store.path} was made with tokenizer {store.tokenizer_hash}, but {checkpoint} "
            f"was trained with {source.tokenizer}: prepare that corpus with {remedy}"
        )
    if model.vocab_size < store.vocab_size:
        raise UserError(
            f"{checkpoint} has {model.vocab_size} tokens, but the tokenizer of {store.path} has "
            f"{store.vocab_size}: name a store that was prepared with the model's tokenizer"
        )


def _has_tokenizer(source: RunSource) -> bool:
    """Whether the store that the run was trained on is there, and still has its tokenizer."""
    try:
        return Store.open(source.corpus).tokenizer_hash == source.tokenizer
    except UserError:
        return False


def _same_tokenizer(store: Store, source: RunSource) -> bool:
    """Whether the hashes are equal, or were if this release of tokenizers had written both."""
    if store.tokenizer_hash == source.tokenizer:
        return True
    if not (source.corpus / TOKENIZER).is_file():
        return False
    theirs, ours = store.tokenizer(), Store.open(source.corpus)
    same = tokenizer_hash(theirs) == tokenizer_hash(ours.tokenizer())
    return same and ours.tokenizer_hash == source.tokenizer


def _context(
    checkpoint: Path, model: LanguageModel, asked: int | None, source: RunSource | None
) -> int:
    if asked is not None:
        check_range("--context", asked, at_least=1)
    chosen = asked or (source.data["context"] if source else model.context)
    if chosen is None:
        raise UserError(f"{checkpoint}: its model takes any length: give --context N")
    if model.context is not None and chosen > model.context:
        raise UserError(
            f"--context {chosen}: {checkpoint} takes at most {model.context} tokens at once"
        )
    return int(chosen)
