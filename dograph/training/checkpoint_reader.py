"""Reads checkpoints: finds the newest sound one, checks it, and loads it without code."""

from __future__ import annotations

import logging
import math
import pickle
import re
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dograph.errors import UserError
from dograph.files.atomic import read_mapping
from dograph.files.checksums import json_digest
from dograph.files.run_dir import CHECKPOINTS, PROVENANCE
from dograph.training.language_model import LanguageModel

logger = logging.getLogger(__name__)

INSTANTIATOR = "_instantiator"
"""Lightning's key for a function by which a model is built, wherever it is imported from."""


class CheckpointIdentity(NamedTuple):
    """Which checkpoint something was measured on.

    Attributes:
        step: optimiser steps behind it.
        digest: of its content, in hexadecimal. None: the file is gone.
    """

    step: int
    digest: str | None


def load_model(path: Path | str, role: str = "checkpoint") -> LanguageModel:
    """The model of a checkpoint that a run of this package wrote, on the CPU, frozen.

    Args:
        path: of the file.
        role: what the checkpoint is to its user, for the messages.

    Raises:
        UserError: as ``read_checkpoint``, and if the file names code that builds a model.
    """
    settings = read_checkpoint(Path(path), lazy=True, role=role).get("hyper_parameters")
    if isinstance(settings, dict) and INSTANTIATOR in settings:
        raise UserError(f"{role} {path}: refused, since it names what should build its model")
    try:
        with torch.random.fork_rng(devices=[]):  # it is built at random before it is filled
            model = LanguageModel.load_from_checkpoint(
                path,
                map_location="cpu",
                weights_only=True,
                attention=None,  # the training device's, which need not be this one
                gradient_checkpointing=False,
            )
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{role} {path}: no checkpoint of a language model: {error}") from error
    model.requires_grad_(False).eval()
    return model


def trained_context(path: Path) -> int | None:
    """``context`` of the DataMixer that a checkpoint was trained on; None if it does not tell."""
    for state in read_checkpoint(path, lazy=True).values():
        settings = state.get("belongs_to") if isinstance(state, dict) else None
        context = settings.get("context") if isinstance(settings, dict) else None
        if isinstance(context, int) and context > 0:
            return context
    return None


def load_reference(
    path: Path | str, vocab_size: int, context: int, tokenizer: str | None = None
) -> LanguageModel:
    """A checkpoint's model whose token losses compare with those of a model in training.

    Args:
        path: of the file.
        vocab_size: tokens of the model in training.
        context: tokens that it sees at once.
        tokenizer: hash of its tokenizer, compared with what the reference's run recorded, if its
            run directory is there. None: not compared.

    Raises:
        UserError: as ``load_model``, and for another tokenizer or vocabulary, or too short a
            context.
    """
    reference = load_model(path, "reference model")
    recorded = read_mapping(Path(path).resolve().parent.parent / PROVENANCE).get("tokenizer")
    if tokenizer is not None and recorded not in (None, tokenizer):
        raise UserError(
            f"reference model {path} was trained with tokenizer {recorded}, but the corpus has "
            f"{tokenizer}: their losses compare only with the same tokenizer; set "
            "corpus.tokenizer to the tokenizer.json of the reference's store"
        )
    if reference.vocab_size != vocab_size:
        raise UserError(
            f"reference model {path} has {reference.vocab_size} tokens, but the model in training "
            f"{vocab_size}: their losses compare only with the same tokenizer"
        )
    if reference.context is not None and reference.context < context:
        raise UserError(
            f"reference model {path} takes {reference.context} tokens, but data.context is "
            f"{context}"
        )
    return reference


def read_checkpoint(
    path: Path, map_location: Any = "cpu", lazy: bool = False, role: str = "checkpoint"
) -> dict[str, Any]:
    """A checkpoint's content: tensors, numbers and text, never code.

    Args:
        path: of the file.
        map_location: as torch takes it.
        lazy: leave tensors on the disk until they are asked for.
        role: what the checkpoint is to its user, for the messages.

    Raises:
        UserError: if it is missing, damaged, or would run code.
    """
    if path.is_dir():
        raise UserError(
            f"{role} {path}: a sharded checkpoint; make one file of it: "
            f"python -m lightning.pytorch.utilities.consolidate_checkpoint {path}"
        )
    if not path.is_file():
        raise UserError(f"{role} {path}: no such file; name a checkpoint of a run")
    if not is_sound(path):
        raise UserError(f"{role} {path}: damaged, or no checkpoint (its checksums do not fit)")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=lazy)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{role} {path}: refused, since loading it would run code that it names ({reason})"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"{role} {path}: no checkpoint: {error}") from error
    if not isinstance(content, dict) or "global_step" not in content:
        raise UserError(f"{role} {path}: no checkpoint of a language model")
    return content


def is_sound(path: Path) -> bool:
    """Whether a checkpoint is whole: torch's files are archives with a checksum for each part.

    A folder (a sharded checkpoint) is taken as it is. A file that has not changed is read once.
    """
    if path.is_dir():
        return True
    try:
        now = path.stat()
    except OSError:
        return False
    return _is_whole(path.resolve(), (now.st_ino, now.st_size, now.st_mtime_ns))


@lru_cache(maxsize=64)
def _is_whole(path: Path, version: tuple[int, int, int]) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            # torch compresses nothing; what is compressed could expand without end.
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
            return stored and archive.testzip() is None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError):
        return False


def newest_checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, by the steps behind them, most first; clocks are not asked."""
    files = (folder / CHECKPOINTS).glob("*.ckpt")
    return sorted(files, key=lambda file: (_named_step(file), file.name), reverse=True)


def _named_step(path: Path) -> int:
    """``steps_done``; −1 for a checkpoint that does not tell."""
    try:
        return steps_done(path)
    except UserError:
        return -1


def newest_sound(folder: Path, below: float = math.inf) -> Path | None:
    """A run's newest whole checkpoint of fewer steps than ``below``; None without any.

    Warns of those that are not whole; raises UserError if there are no others.
    """
    damaged = []
    for path in newest_checkpoints(folder):
        if not is_sound(path):
            damaged.append(path)
        elif below == math.inf or _named_step(path) < below:
            for other in damaged:
                logger.warning("%s is damaged: %s is used instead", other, path.name)
            return path
    if damaged:
        raise UserError(
            f"{damaged[0]}: damaged, and there is no whole checkpoint before it: move "
            f"{damaged[0].parent} away to begin this run anew"
        )
    return None


def steps_done(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint, by its name or else its content.

    Raises:
        UserError: if it is damaged, or tells neither.
    """
    if named := re.fullmatch(r"step=(\d{1,18})", checkpoint.stem):
        return int(named.group(1))
    step = read_checkpoint(checkpoint, lazy=True)["global_step"]
    if not isinstance(step, int):
        raise UserError(f"checkpoint {checkpoint}: its global_step is no number")
    return step


def content_digest(checkpoint: Path) -> str | None:
    """Digest of a checkpoint's content, by the checksums of its parts, so that none is read.

    None where it is missing, damaged or a folder.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            parts = archive.infolist()
            return json_digest({part.filename: [part.file_size, part.CRC] for part in parts})
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return None
