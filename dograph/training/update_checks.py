"""Whether a run is long enough, and validated often enough, for its mixer to act."""

from __future__ import annotations

import logging
import math

from lightning.pytorch import Trainer

from dograph.errors import UserError
from dograph.mixers.base import SAMPLING, BaseMixer
from dograph.signals.batch_signals import HeldOutLoss, ValidationLoss

logger = logging.getLogger(__name__)
INSTEAD = "or take another mixer or target"


def check_updates(trainer: Trainer, mixer: BaseMixer, has_text: bool, lookahead: int = 0) -> None:
    """Warn of a run that ends before its mixer acts; UserError where it can never be validated.

    Args:
        trainer: of the run.
        mixer: set up for it.
        has_text: whether the corpus holds out text to validate on.
        lookahead: batches before new weights are drawn by.
    """
    _check_first_update(trainer, mixer, lookahead)
    if mixer.request(ValidationLoss):
        _check_validations(trainer, mixer, has_text)
    elif mixer.request(HeldOutLoss):
        _check_text(mixer, has_text)


def first_update(mixer: BaseMixer) -> int:
    """Optimiser steps after which weights, or the losses' weights, may first change."""
    if mixer.is_proxy or mixer.acts(SAMPLING):
        return (mixer.warmup // mixer.update_every + 1) * mixer.update_every
    return mixer.warmup + 1


def _check_first_update(trainer: Trainer, mixer: BaseMixer, lookahead: int) -> None:
    steps, first, name = trainer.max_steps, first_update(mixer), type(mixer).__name__
    parts = int(trainer.accumulate_grad_batches)
    if steps < 1 or not mixer.learns:
        return
    if steps <= mixer.acts_from:
        logger.warning(
            "trainer.max_steps is %d, but %s changes nothing in its first %d steps: raise it",
            steps,
            name,
            mixer.acts_from,
        )
    elif steps < first:
        logger.warning(
            "trainer.max_steps is %d, but %s first acts on step %d, so its weights stay as they "
            "begin: raise it, or lower what the mixer waits for (warmup, update_every, interval)",
            steps,
            name,
            first,
        )
    elif mixer.acts(SAMPLING) and 0 < lookahead >= (steps - first) * parts:
        logger.warning(
            "trainer.max_steps is %d, but weights of %s's first update, on step %d, reach batches "
            "%d later, so that nothing is drawn by them: raise it, or lower data.lookahead",
            steps,
            name,
            first,
            lookahead,
        )


def _check_validations(trainer: Trainer, mixer: BaseMixer, has_text: bool) -> None:
    name, interval = type(mixer).__name__, trainer.val_check_interval
    reads = f"but {name} reads the losses of validations here"
    if trainer.limit_val_batches == 0:
        raise UserError(f"trainer.limit_val_batches is 0, {reads}: raise it, {INSTEAD}")
    _check_text(mixer, has_text)
    # A validation comes after the update of its step.
    updates = trainer.max_steps // mixer.update_every * mixer.update_every
    batches = updates * int(trainer.accumulate_grad_batches)
    if trainer.max_steps > 0 and batches <= _batches_between(trainer):
        logger.warning(
            "trainer.val_check_interval is %s, %s, and its last update comes after %d batches: set "
            "it to fewer batches",
            interval,
            reads,
            batches,
        )


def _check_text(mixer: BaseMixer, has_text: bool) -> None:
    if not has_text:
        raise UserError(
            f"the corpus holds out no text, but {type(mixer).__name__} reads the losses of "
            f"validations here: raise corpus.validation_fraction, {INSTEAD}"
        )


def _batches_between(trainer: Trainer) -> float:
    """Batches before the first validation; a share is one of an epoch, which ends only if cut."""
    interval, epoch = trainer.val_check_interval, trainer.limit_train_batches
    if isinstance(interval, int):
        return interval
    return interval * epoch if isinstance(epoch, int) else math.inf
