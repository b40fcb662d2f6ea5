"""Mixing in a training loop of one's own: plain PyTorch, Fabric, or somebody else's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.mixers.random_state import global_random_state, set_global_random_state
from dograph.signals.batch_signals import ValidationLoss
from dograph.signals.sketches import SketchSettings
from dograph.training.loop import OwnLoop
from dograph.training.mixing import Mixing
from dograph.training.step_state import StepState

logger = logging.getLogger(__name__)


@dataclass
class OwnModel:
    """A network and how its token losses are computed; see ``TrainedModel``."""

    network: nn.Module
    token_losses: Callable[[Tensor], Tensor]


class MixingLoop(Mixing):
    """``Mixing`` in a loop of one's own.

    ``batches`` serves the run; for each, train on ``loss``, whose backward ``after_backward``
    follows; after the optimiser's step comes ``after_step``. On several ranks every process makes
    one after ``torch.distributed`` is initialised, each with ``data.batch_size`` sequences a batch.

    Args:
        data: the corpus and its mixer; this prepares it and sets it up.
        network: in training; its layers are sketched. Where it is wrapped, as by DDP, what is in
            the wrapper.
        token_losses: from (B, T + 1) int64 tokens to the (B, T) cross-entropy of each next token,
            in nats, with its graph, by ``network`` itself: of held-out text and probes.
        optimizer: of the run.
        steps: optimiser steps of the run.
        micro_batches: batches of an optimiser step on each rank, whose losses are averaged: divide
            each loss by it.
        scaler: the gradient scaler of fp16, where there is one.
        sketch: how gradients are sketched, where the mixer needs it.

    Raises:
        UserError: if mixer, corpus and settings do not fit together.
    """

    loop: OwnLoop

    def __init__(
        self,
        data: DataMixer,
        network: nn.Module,
        token_losses: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        steps: int,
        micro_batches: int = 1,
        scaler: Any = None,
        sketch: SketchSettings | None = None,
    ) -> None:
        super().__init__(sketch)
        model = OwnModel(network, token_losses)
        loop = OwnLoop(model, optimizer, steps, micro_batches, scaler)
        first = loop.first if loop.world_size > 1 else None
        data.begin(loop.world_size, steps, micro_batches, loop.rank, first)
        self.begin(loop, model, data)
        self._random_state: dict[str, Any] | None = None
        self._backwards = self._loads = 0

    def batches(self) -> Iterator[Batch]:
        """The batches, on the optimiser's device, from the step reached to the run's last.

        They continue where a state that is loaded meanwhile was taken.

        Raises:
            UserError: where a batch was not followed by what mixing needs to hear of.
        """
        while self.loop.step < self.loop.steps:
            yield from self._batches_of_state()

    def _batches_of_state(self) -> Iterator[Batch]:
        """The batches to the run's last, or until a state is loaded: loaders prefetch."""
        loop, self._backwards, loads = self.loop, 0, self._loads
        for served, batch in enumerate(self.data.train_dataloader(), start=1):
            if self._random_state is not None:  # by now the loader has drawn what it draws
                set_global_random_state(self._random_state, loop.device)
                self._random_state = None
            self.before_forward()
            yield batch.to(loop.device)
            if self._loads > loads:
                return
            self._check_heard(served)
            if loop.step >= loop.steps:
                return

    def _check_heard(self, served: int) -> None:
        if self._backwards != served:
            raise UserError(
                f"batch {served} of MixingLoop.batches() was not trained on: call "
                "after_backward() once the backward of loss(batch, token_losses) is done"
            )
        if len(self._state.micro_batches) == self.loop.micro_batches:
            raise UserError(
                f"an optimiser step of {self.loop.micro_batches} batch(es) was not told to "
                "MixingLoop: call after_step() once the optimiser has stepped"
            )

    def loss(self, batch: Batch, token_losses: Tensor) -> Tensor:
        """The scalar to train on, of a batch and its (B, T) token losses with their graph."""
        loss = self.reduce_loss(batch, token_losses)
        if loss.requires_grad:
            self.before_backward()
        return loss

    @property
    def usable(self) -> bool:
        """Whether all that was measured of this step is finite; else leave its update out."""
        return self._state.usable

    def after_backward(self) -> None:
        """Reads what the backward has brought, and counts the batch as trained on."""
        super().after_backward()
        self.data.sampler.mark_trained()
        self._backwards += 1

    def after_step(self, skipped: bool = False) -> None:
        """Lets the mixer update what is drawn, after an optimiser step.

        Args:
            skipped: whether the step was left out, since it was not finite.

        Raises:
            UserError: before all batches of the step were trained on.
        """
        done, whole = len(self._state.micro_batches), self.loop.micro_batches
        if done != whole:
            raise UserError(
                f"MixingLoop.after_step() came after {done} of micro_batches={whole} batches of "
                "the step: call it once for each step of the optimiser"
            )
        self._warn_of_no_validation()
        super().after_step(skipped)
        self.loop.step += 1

    def _warn_of_no_validation(self) -> None:
        mixer, due = self.mixer, (self.loop.step + 1) % self.mixer.update_every == 0
        if due and mixer.request(ValidationLoss) and mixer.validation_loss is None:
            logger.warning(
                "%s reads validation losses, and there is none yet: call validate() more often",
                type(mixer).__name__,
            )

    def validate(self) -> dict[str, float]:
        """Mean token losses in nats by domain, which the mixer is told; every rank must call it."""
        losses = dict(zip(self.data.domains, self.held_out_losses().tolist(), strict=True))
        self.mixer.validated(losses)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Step, draws, mixer and this rank's random state: tensors and plain values.

        A UserError within an optimiser step, of whose batches the state would not hold the
        gradients.
        """
        if done := len(self._state.micro_batches):
            raise UserError(
                f"MixingLoop.state_dict() came after {done} of micro_batches="
                f"{self.loop.micro_batches} batches of an optimiser step, whose gradients no state "
                "holds: save after after_step()"
            )
        return {
            "step": self.loop.step,
            "data": self.data.state_dict(),
            "effective": self._effective.state_dict(),
            "random_state": global_random_state(self.loop.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where ``state_dict`` was taken; a UserError for another corpus or mixer."""
        self._loads += 1
        self.loop.step = int(state["step"])
        self._state = StepState(self.loop.step)
        self.data.load_state_dict(state["data"])
        self._effective.load_state_dict(state["effective"])
        self._random_state = state["random_state"]
        self._handed_over = self._weights()
