"""Refuses trainers and models whose steps a MixingCallback cannot follow."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn

from dograph.errors import UserError
from dograph.training.language_model import mean_loss


def check_model(model: LightningModule) -> None:
    """Raises UserError for a model that mixing cannot be for.

    That is one without what mixing reads, and one that steps or weighs its losses by itself.
    """
    name = type(model).__name__
    lacks = []
    if not isinstance(getattr(model, "network", None), nn.Module):
        lacks.append("an attribute `network`, the module whose layers gradients are read from")
    if not callable(getattr(model, "token_losses", None)):
        lacks.append(
            "a method `token_losses(tokens)`, from (B, T + 1) token ids to the (B, T) "
            "cross-entropy of each next token"
        )
    if lacks:
        raise UserError(
            f"MixingCallback needs of {name}: {'; '.join(lacks)}; and that its training_step "
            "returns self.reduce_loss(batch, token_losses)"
        )
    if not model.automatic_optimization:
        raise UserError(
            f"{name}.automatic_optimization is False, but MixingCallback follows the steps that "
            "the trainer takes: leave it True; trainer.accumulate_grad_batches makes steps larger"
        )
    if getattr(model, "reduce_loss", mean_loss) is not mean_loss:
        raise UserError(
            f"{name}.reduce_loss is your own, but MixingCallback would put the mixer's in its "
            "place: override token_losses instead, or leave MixingCallback out"
        )


def check_steps(trainer: Trainer) -> None:
    """Raises UserError if steps or batches would be cut short, repeat or never come."""
    if overfit := getattr(trainer, "overfit_batches", 0):
        raise UserError(
            f"trainer.overfit_batches is {overfit}, but every epoch draws new "
            "batches: leave it out, and repeat few sequences by data.cap"
        )
    callbacks: list[object] = list(getattr(trainer, "callbacks", []))
    if any(isinstance(each, GradientAccumulationScheduler) for each in callbacks):
        raise UserError(
            "a GradientAccumulationScheduler would change how many batches a step has in the midst "
            "of the run: leave it out, and set trainer.accumulate_grad_batches"
        )
    most, parts = trainer.limit_train_batches, int(trainer.accumulate_grad_batches)
    endless = "of batches without end: give a whole number of batches"
    if isinstance(most, float) and most < 1:
        raise UserError(f"trainer.limit_train_batches is {most}, a share {endless}")
    interval = trainer.val_check_interval
    if isinstance(most, float) and isinstance(interval, float) and interval < 1:
        raise UserError(f"trainer.val_check_interval is {interval}, a share {endless}")
    if isinstance(most, int) and most % parts:
        raise UserError(
            f"trainer.limit_train_batches is {most}, no multiple of "
            f"trainer.accumulate_grad_batches ({parts}), so that every epoch would end with a "
            "smaller batch: make it one, or leave it out and set max_steps"
        )
