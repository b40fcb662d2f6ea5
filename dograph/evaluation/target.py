"""What is evaluated: a checkpoint's model, with the text to evaluate it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dograph.data.corpus.manifest import TOKENIZER
from dograph.data.corpus.store import Store
from dograph.data.corpus.tokenizer import tokenizer_hash
from dograph.errors import UserError
from dograph.evaluation.options import check_positive
from dograph.evaluation.run_source import Origin, find_checkpoint, find_origin
from dograph.files.run_dir import FINAL_CHECKPOINT
from dograph.training.checkpoint import load_model
from dograph.training.language_model import LanguageModel


@dataclass(frozen=True)
class Subject:
    """A model and a store that have the same tokens.

    Attributes:
        checkpoint: the file.
        model: frozen, in float32, on the device it is evaluated on.
        store: the corpus.
        context: tokens that the model sees at once.
        origin: the checkpoint's run; None where nothing beside it says.
    """

    checkpoint: Path
    model: LanguageModel
    store: Store
    context: int
    origin: Origin | None

    @property
    def on_own_corpus(self) -> bool | None:
        """Whether the store is the one that the run trained on; None if nothing says."""
        return None if self.origin is None else self.store.fingerprint == self.origin.fingerprint

    @property
    def as_trained(self) -> bool:
        """Whether it is a run's final checkpoint, on the run's own corpus and context."""
        own = self.origin is not None and self.context == self.origin.data["context"]
        return own and self.final_of is not None and bool(self.on_own_corpus)

    @property
    def final_of(self) -> Path | None:
        """The run's folder if this is its final checkpoint, else None."""
        folder = self.origin.folder if self.origin else None
        if folder is None or self.checkpoint.resolve() != (folder / FINAL_CHECKPOINT).resolve():
            return None
        return folder


def open_subject(
    path: Path, corpus: Path | None = None, context: int | None = None, device: str = "auto"
) -> Subject:
    """Loads a checkpoint, and opens the store to evaluate it on.

    Args:
        path: of a checkpoint, or a run's folder.
        corpus: a prepared store with the run's tokenizer. None: the run's own.
        context: tokens a sequence, ≥ 1. None: the run's, or all that a lone checkpoint's model
            takes.
        device: torch's name of it, or "auto".

    Raises:
        UserError: if anything is missing, damaged or does not fit.
    """
    checkpoint = find_checkpoint(path)
    origin = find_origin(checkpoint)
    if corpus is None and origin is None:
        raise UserError(
            f"{checkpoint}: no provenance.json beside it says what it was trained on; name a "
            "prepared store with --corpus STORE"
        )
    model = load_model(checkpoint)
    store = _own_store(origin) if corpus is None and origin else Store.open(str(corpus))
    _check_tokens(checkpoint, model, store, origin)
    chosen = _context(checkpoint, model, context, origin)
    return Subject(checkpoint, model.to(pick_device(device)), store, chosen, origin)


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        UserError: if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def _own_store(origin: Origin) -> Store:
    store = Store.open(origin.corpus)
    if store.fingerprint != origin.fingerprint:
        raise UserError(
            f"store {store.path} has changed since the run {origin.folder} (fingerprint "
            f"{store.fingerprint}, then {origin.fingerprint}): prepare the run's text again, or "
            f"name a store with --corpus; {store.path} itself counts as another corpus then"
        )
    return store


def _check_tokens(
    checkpoint: Path, model: LanguageModel, store: Store, origin: Origin | None
) -> None:
    if origin is not None and not _same_tokenizer(store, origin):
        raise UserError(
            f"store {store.path} was made with tokenizer {store.tokenizer_hash}, but {checkpoint} "
            f"was trained with {origin.tokenizer}: prepare that corpus with "
            f"corpus.tokenizer={origin.corpus / TOKENIZER}"
        )
    if model.vocab_size < store.vocab_size:
        raise UserError(
            f"{checkpoint} knows {model.vocab_size} tokens, but those in {store.path} go up to "
            f"{store.vocab_size}: name a store that was prepared with the model's tokenizer"
        )


def _same_tokenizer(store: Store, origin: Origin) -> bool:
    """By hash, or as this release of tokenizers writes both of them."""
    if store.tokenizer_hash == origin.tokenizer:
        return True
    if not (origin.corpus / TOKENIZER).is_file():
        return False
    theirs, ours = store.tokenizer(), Store.open(origin.corpus)
    same = tokenizer_hash(theirs) == tokenizer_hash(ours.tokenizer())
    return same and ours.tokenizer_hash == origin.tokenizer


def _context(
    checkpoint: Path, model: LanguageModel, asked: int | None, origin: Origin | None
) -> int:
    check_positive({"context": asked})
    chosen = origin.data["context"] if origin else model.context
    chosen = chosen if asked is None else asked
    if chosen is None:
        raise UserError(f"{checkpoint}: its model takes any length: say --context N")
    if model.context is not None and chosen > model.context:
        raise UserError(
            f"--context {chosen}: {checkpoint} takes at most {model.context} tokens at once"
        )
    return int(chosen)
