"""What training gathers for a mixer, of every micro-batch and over all ranks."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.signals.backward_reader import BackwardReader
from dograph.signals.batch_signals import BatchSignals, Signal
from dograph.signals.domain_gradients import DomainGradients
from dograph.signals.recorded_forward import RecordedForward, SketchMode
from dograph.signals.shared_backward import ReduceLoss, weighted_sum
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.training.language_model import LanguageModel
from dograph.training.reference_model import load_reference

SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
"""Strategies under which a layer's parameters are there only while it works."""


class SignalCollector:
    """Sees micro-batches before their backward: losses and the signals that the mixer needs.

    Args:
        trainer: of the run.
        model: in training.
        data: its mixer says what is needed.
        sketch: how gradients are sketched.
        observed: whether figures, too, want sketches now and then.

    Attributes:
        sketcher: None where nobody wants sketches.
        reference: the frozen reference model; None where no excess loss is needed.
        weighted_loss: what makes the last micro-batch's loss of its weights.
        reader: of the backward of the last micro-batch, where its sketches come from there.

    Raises:
        UserError: if the mixer's reference model is missing or does not fit.
    """

    def __init__(
        self,
        trainer: Trainer,
        model: LanguageModel,
        data: DataMixer,
        sketch: SketchSettings,
        observed: bool,
    ) -> None:
        self.trainer, self.model, self.data = trainer, model, data
        self.needs = frozenset(data.mixer.needs)
        self.sketcher: SequenceSketcher | None = None
        self.reference: LanguageModel | None = None
        self.domain_gradients: DomainGradients | None = None
        self.weighted_loss: ReduceLoss = weighted_sum
        self.reader: BackwardReader | None = None
        self._forward: RecordedForward | None = None
        self._step_domain: Tensor | None = None
        # A scaler's small losses would be lost in the half precision of unscaled gradients.
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        self._may_share = not scaled and not isinstance(trainer.strategy, SHARDED)
        if Signal.EXCESS_LOSS in self.needs:
            if not data.mixer.reference:
                raise UserError(
                    f"{type(data.mixer).__name__} needs a reference model: set its `reference` to "
                    "a checkpoint"
                )
            self.reference = load_reference(data.mixer.reference, model, data.context)
        if Signal.DOMAIN_GRADIENTS in self.needs:
            self.domain_gradients = DomainGradients(model.parameters(), len(data.domains))
        if self.needs & {Signal.SKETCH, Signal.PROBE} or observed:
            self.sketcher = SequenceSketcher(model.network, sketch)
            model.observed_modules = list(self.sketcher.modules)

    def detach(self) -> None:
        """Removes the hooks from the model."""
        if self.sketcher is not None:
            self.sketcher.detach()
            self.sketcher = None

    def record(self, step: int, observing: bool) -> None:
        """Before a forward pass: has the sketcher record it where somebody needs it."""
        self._forward = None
        if self.sketcher is None:
            return
        asked = Signal.SKETCH in self.data.mixer.needs_at(step)
        if asked or observing:
            self._forward = self.sketcher.record(self._mode(asked))

    def _mode(self, asked: bool) -> SketchMode:
        """Where sketches come from: what only looks at training must not change it by a bit."""
        if not self._may_share:
            return SketchMode.OWN
        if not self.data.mixer.changes_loss:
            return SketchMode.READ
        return SketchMode.SHARED if asked else SketchMode.OWN

    def see(
        self, batch: Batch, token_losses: Tensor, losses: Tensor, step: int, position: int
    ) -> BatchSignals:
        """Gathers one micro-batch.

        Args:
            batch: this rank's B sequences.
            token_losses: (B, T) with their graph.
            losses: (B,) their means, with their graph.
            step: optimiser steps done.
            position: of this micro-batch in the optimiser step, from 0.
        """
        micro_batches = int(self.trainer.accumulate_grad_batches)
        sketch, self.weighted_loss, self.reader = None, weighted_sum, None
        forward, self._forward = self._forward, None
        if forward is not None and forward.mode is SketchMode.READ:
            self.reader = forward.reader(step)
        elif forward is not None:
            own, self.weighted_loss = forward.sketch_and_share(losses, step)
            sketch = self._gather(own)
        last = position == micro_batches - 1
        probe_sketch, probe_domain = self._probe(step, losses.device) if last else (None, None)
        return BatchSignals(
            step=step,
            domain=self._gather(batch.domain),
            sequence_loss=self._gather(losses.detach()),
            sketch=sketch,
            excess_loss=self._excess_loss(batch, token_losses),
            domain_kernel=self._domain_kernel(batch, last),
            probe_sketch=probe_sketch,
            probe_domain=probe_domain,
            step_domain=self._domains_of_step(micro_batches, position),
            learning_rate=float(self.trainer.optimizers[0].param_groups[0]["lr"]),
        )

    def read_sketch(self, weights: Tensor) -> Tensor | None:
        """(B,) sequences' sketches of all ranks, where the micro-batch's backward was read.

        Args:
            weights: (B,) that this rank's losses counted by.
        """
        if self.reader is None:
            return None
        reader, self.reader = self.reader, None
        return self._gather(reader.sketch(weights / int(self.trainer.accumulate_grad_batches)))

    def _excess_loss(self, batch: Batch, token_losses: Tensor) -> Tensor | None:
        """(B,) mean over tokens of ``max(ℓ − ℓ_reference, 0)``, of all ranks."""
        if self.reference is None:
            return None
        self.reference.to(token_losses.device)
        with torch.no_grad():
            expected = self.reference.token_losses(batch.tokens)
            return self._gather((token_losses - expected).clamp(min=0).mean(dim=1))

    def _domain_kernel(self, batch: Batch, last: bool) -> Tensor | None:
        """(S, S) of the whole optimiser step, with its last micro-batch."""
        if self.domain_gradients is None:
            return None

        def sequence_losses(rows: Tensor) -> Tensor:
            return self.model.token_losses(batch.tokens[rows]).mean(dim=1)

        self.domain_gradients.add(batch.domain, sequence_losses)
        return self.domain_gradients.take_kernel(self._total) if last else None

    def _probe(self, step: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Sketches of held-out sequences and their domains, the same on every rank."""
        if Signal.PROBE not in self.data.mixer.needs_at(step):
            return None, None
        assert self.sketcher is not None
        batch = self.data.probe_batch(step)
        parts = []
        for tokens in batch.tokens.to(device).split(self.data.batch_size):
            forward = self.sketcher.record()
            losses = self.model.token_losses(tokens).mean(dim=1)
            parts.append(forward.sketch(losses, step))
        return torch.cat(parts), batch.domain

    def _domains_of_step(self, micro_batches: int, position: int) -> Tensor | None:
        """(n,) domains of all ranks' sequences of the optimiser step."""
        if micro_batches == 1:
            return None
        if position == 0:
            coming = self.data.sampler.upcoming(micro_batches)
            self._step_domain = torch.tensor([domain for picks in coming for domain, _ in picks])
        return self._step_domain

    def _total(self, values: Tensor) -> Tensor:
        total = self.trainer.strategy.reduce(values, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def _gather(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        gathered = self.model.all_gather(values)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)
