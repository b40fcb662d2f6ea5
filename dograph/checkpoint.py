"""A language model from a checkpoint, without its recipe and without executing code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from dograph.errors import UserError
from dograph.model import LanguageModel

FINAL_CHECKPOINT = Path("checkpoints", "final.ckpt")
"""In a run's folder."""


def load_model(path: Path | str, role: str = "checkpoint") -> LanguageModel:
    """The model of a checkpoint that a run of this package wrote, on the CPU, frozen.

    Args:
        path: of the file.
        role: what the checkpoint is to its user, for the messages.

    Raises:
        UserError: if the file is missing or is no such checkpoint.
    """
    if not Path(path).is_file():
        raise UserError(f"{role} {path}: no such file; name a checkpoint of a run")
    try:
        with torch.random.fork_rng(devices=[]):  # it is built at random before it is filled
            model = LanguageModel.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        what = f"no checkpoint of a language model: {error}"
        raise UserError(f"{role} {path}: {what}") from error
    model.requires_grad_(False).eval()
    return model
