"""The only glue between training and mixing."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.mixers.base import dry_run, even_weights, on_simplex
from dograph.signals.batch_signals import BatchSignals
from dograph.signals.shared_backward import weighted_sum
from dograph.signals.sketches import SketchSettings
from dograph.training.language_model import LanguageModel
from dograph.training.signal_collector import SignalCollector

COUNTED_TOGETHER = 64
"""Optimiser steps whose sequence weights stay on their device before they are counted."""


class MixingCallback(Callback):
    """Gathers what the mixer needs, asks it for weights, hands them to loss and sampler.

    Works in any Lightning script that trains a ``LanguageModel`` on a ``DataMixer``. A batch with
    a loss or a signal that is not finite counts evenly and tells the mixer nothing. Observing
    (sketches that only figures use) never changes training.

    Args:
        sketch: how gradients are sketched, where the mixer or an observer needs it.
        observe_every: optimiser steps between two windows in which sequences are sketched for
            figures; 0 never.
        observe_window: steps such a window lasts; it ends at a multiple of ``observe_every``,
            and the first steps of a run are always one.

    Attributes:
        signals: what was signals of the last batch, of all ranks.
    """

    def __init__(
        self,
        sketch: SketchSettings | None = None,
        observe_every: int = 0,
        observe_window: int = 8,
    ) -> None:
        if observe_every and not 0 < observe_window <= observe_every:
            raise UserError(
                f"observe_window is {observe_window}: it must lie in 1 … observe_every "
                f"({observe_every})"
            )
        self.sketch_settings = sketch if sketch is not None else SketchSettings()
        self.observe_every, self.observe_window = observe_every, observe_window
        self.collector: SignalCollector | None = None
        self.signals: BatchSignals | None = None
        self._effective = torch.zeros(0, dtype=torch.float64)
        self._uncounted: list[tuple[Tensor, Tensor]] = []
        self._micro_batches: list[BatchSignals] = []
        self._own_weights = torch.zeros(0)
        self._finite = True
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the DataMixer and prepares what its mixer needs, before training."""
        if stage != "fit":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, DataMixer) or not isinstance(pl_module, LanguageModel):
            raise UserError(
                "MixingCallback needs trainer.fit(LanguageModel, datamodule=DataMixer), got "
                f"{type(pl_module).__name__} and {type(data).__name__}"
            )
        self.trainer, self.model, self.data = trainer, pl_module, data
        # A resumed run's own sums are restored after this.
        self._effective = torch.zeros(len(data.domains), dtype=torch.float64)
        self._uncounted = []
        self._micro_batches = []
        if self.sketch_settings.fresh and getattr(data.mixer, "window", 1) > 1:
            raise UserError(
                "sketch.fresh draws new projections every step, so that sketches of several steps "
                f"cannot be compared, but mixer.init_args.window is {data.mixer.window}: set "
                "sketch.fresh to false"
            )
        dry_run(data.mixer, data.batch_size * trainer.world_size)
        self.collector = SignalCollector(
            trainer, pl_module, data, self.sketch_settings, observed=self.observe_every > 0
        )
        pl_module.sequence_weighting = self.weigh

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Removes the sketcher's hooks."""
        if stage == "fit":
            self._detach()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Removes the hooks; Lightning does not call ``teardown`` after an exception."""
        self._detach()

    def _detach(self) -> None:
        if self.collector is not None:
            self.collector.detach()

    def observing(self, step: int) -> bool:
        """Whether sequences are sketched for figures at an optimiser step."""
        if not self.observe_every:
            return False
        in_window = step % self.observe_every >= self.observe_every - self.observe_window
        return step < self.observe_window or in_window

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Lets the sketcher record the coming forward pass where somebody needs it."""
        self._step = trainer.global_step
        if self.collector is not None:
            self.collector.record(self._step, self.observing(self._step))

    def weigh(self, batch: Batch, token_losses: Tensor, losses: Tensor) -> Tensor:
        """How this rank's losses count, before their backward; the global batch sums to 1.

        Args:
            batch: this rank's B sequences.
            token_losses: (B, T) with their graph.
            losses: (B,) mean token losses with their graph.

        Returns:
            (B,) weights, times the number of ranks since gradients are averaged over them.
        """
        assert self.collector is not None
        position = len(self._micro_batches)
        self.signals = self.collector.see(batch, token_losses, losses, self._step, position)
        # Handed over: it holds on to the batch.
        self.model.weighted_loss = self.collector.weighted_loss
        self.collector.weighted_loss = weighted_sum
        mixer = self.data.mixer
        self._finite = (self._finite or position == 0) and (
            not mixer.listens or self.signals.finite
        )
        self.model.unusable = not self._finite
        weights = mixer.weigh(self.signals) if self._finite else even_weights(self.signals)
        world_size = self.trainer.world_size
        if world_size > 1 and self.data.mixer.changes_loss:
            weights = self.trainer.strategy.broadcast(weights, src=0)
        weights = weights.to(losses.device)
        self.signals.loss_weights = weights
        self._micro_batches.append(self.signals)
        if world_size > 1:
            share = losses.numel()
            first = self.trainer.global_rank * share
            weights = weights[first : first + share] * world_size
        self._own_weights = weights
        return weights

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Lets the sketches be read from this backward, where they are."""
        if self.collector is not None and self.collector.reader is not None:
            self.collector.reader.arm()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the sketches that the micro-batch's backward has brought, if it was asked."""
        if self.collector is None or self.signals is None:
            return
        sketch = self.collector.read_sketch(self._own_weights)
        if sketch is None:
            return
        self.signals.sketch = sketch
        if self.data.mixer.listens:
            self._finite = self._finite and bool(sketch.isfinite().all())
            self.model.unusable = not self._finite

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Counts the batch; after an optimiser step lets the mixer update what is drawn."""
        self.data.sampler.mark_trained()
        if trainer.global_step == self._step:
            return
        signals = joined(self._micro_batches)
        self._micro_batches = []
        assert signals.loss_weights is not None
        self._uncounted.append((signals.domain, signals.loss_weights.clone()))
        if len(self._uncounted) == COUNTED_TOGETHER:
            self._count()
        mixer = self.data.mixer
        if mixer.changes_loss and mixer.whole_batch and self._finite:
            on_simplex(signals.loss_weights, "the optimiser step's sequence weights")
        heard = self._finite and not (mixer.listens and bool(self.model.skipped[1]))
        if heard and mixer.step(signals):
            if trainer.world_size > 1:
                for weights in (mixer.weights, mixer.sampling_weights):
                    weights.copy_(trainer.strategy.broadcast(weights, src=0))
            if mixer.live:
                on_simplex(mixer.sampling_weights, f"{type(mixer).__name__}.sampling_weights")
                self.data.sampler.set_weights(mixer.sampling_weights.numpy())

    @property
    def effective(self) -> Tensor:
        """(S,) float64, sums of sequence weights by domain over the run."""
        self._count()
        return self._effective

    def _count(self) -> None:
        """Adds up what has been put by, so that no step waits for its device."""
        for domain, weights in self._uncounted:
            self._effective.index_add_(0, domain.cpu(), weights.to("cpu", torch.float64))
        self._uncounted.clear()

    def state_dict(self) -> dict[str, Any]:
        """Effective weights so far."""
        return {"effective": self.effective}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self._effective = state_dict["effective"]


def joined(parts: list[BatchSignals]) -> BatchSignals:
    """One optimiser step's micro-batches as one batch; their weights sum to 1 again."""
    if len(parts) == 1:
        return parts[0]
    sketches = [part.sketch for part in parts if part.sketch is not None]
    excess = [part.excess_loss for part in parts if part.excess_loss is not None]
    weights = [part.loss_weights for part in parts if part.loss_weights is not None]
    return BatchSignals(
        step=parts[0].step,
        domain=torch.cat([part.domain for part in parts]),
        sequence_loss=torch.cat([part.sequence_loss for part in parts]),
        sketch=torch.cat(sketches) if len(sketches) == len(parts) else None,
        loss_weights=torch.cat(weights) / len(parts),
        excess_loss=torch.cat(excess) if len(excess) == len(parts) else None,
        domain_kernel=parts[-1].domain_kernel,
        probe_sketch=parts[-1].probe_sketch,
        probe_domain=parts[-1].probe_domain,
        learning_rate=parts[0].learning_rate,
    )
