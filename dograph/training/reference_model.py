"""A reference model: frozen, from a checkpoint, for excess losses."""

from __future__ import annotations

from pathlib import Path

from dograph.errors import UserError
from dograph.training.checkpoint_reader import load_model
from dograph.training.language_model import LanguageModel


def load_reference(path: Path | str, model: LanguageModel, context: int) -> LanguageModel:
    """Loads a frozen language model whose token losses compare with another's.

    Args:
        path: a checkpoint that a run of this package wrote; loaded without executing code.
        model: the model in training.
        context: tokens a sequence.

    Raises:
        UserError: if the file is missing, is no such checkpoint, or the model has another
            vocabulary or too short a context.
    """
    reference = load_model(path, "reference model")
    if reference.vocab_size != model.vocab_size:
        raise UserError(
            f"reference model {path} has {reference.vocab_size} tokens, but the model in training "
            f"{model.vocab_size}: their losses compare only with the same tokenizer"
        )
    if reference.context is not None and reference.context < context:
        raise UserError(
            f"reference model {path} takes {reference.context} tokens, but data.context is "
            f"{context}"
        )
    return reference
