"""Collects the signals of every micro-batch, over all ranks, that a mixer asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.mixers.base import LOSS
from dograph.signals.alignment import Alignment, align
from dograph.signals.backward_reader import BackwardReader
from dograph.signals.batch_signals import (
    AlignmentProbe,
    BatchSignals,
    DomainGradients,
    EmbeddingGradients,
    ExcessLoss,
    Probe,
    Sketch,
    TokenGradients,
    clipped_excess,
)
from dograph.signals.domain_gradients import DomainGradientSums
from dograph.signals.recorded_forward import RecordedForward, SketchMode
from dograph.signals.shared_backward import WeightedLoss, weighted_sum
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.signals.token_gradients import EmbeddingReader
from dograph.training.checkpoint_reader import load_reference
from dograph.training.language_model import LanguageModel
from dograph.training.loop import Loop, TrainedModel


class SignalCollector:
    """Builds the ``BatchSignals`` of micro-batches, before their backward.

    For each micro-batch: ``record`` before its forward, ``collect`` and ``weigh`` after it,
    ``before_backward`` and ``after_backward`` around its backward.

    Args:
        data: its mixer says what is needed.
        sketch: how gradients are sketched.
        observed: whether figures, too, want sketches now and then.

    Attributes:
        sketcher: None where nobody wants sketches.
        reference: the frozen reference model; None where no excess loss is needed.
        gradients: sums of the domains' gradients; None where they are not needed.
        embeddings: reader of gradients at the token embeddings; None where they are not needed.
    """

    def __init__(
        self,
        loop: Loop,
        model: TrainedModel,
        data: DataMixer,
        sketch: SketchSettings,
        observed: bool,
    ) -> None:
        self.loop, self.model, self.data, self.mixer = loop, model, data, data.mixer
        self.sketcher: SequenceSketcher | None = None
        self.reference: LanguageModel | None = None
        self.gradients: DomainGradientSums | None = None
        self.embeddings: EmbeddingReader | None = None
        self._probe_embeddings: EmbeddingReader | None = None
        self._forward: RecordedForward | None = None
        self._weighted_loss: WeightedLoss = weighted_sum
        self._reader: BackwardReader | None = None
        self._own_weights = torch.zeros(0)
        self._step_domain: Tensor | None = None
        if loop.sharded and any(map(self.mixer.request, (DomainGradients, AlignmentProbe))):
            raise UserError(
                f"{type(self.mixer).__name__} needs every domain's whole gradient, of which a rank "
                "that has a shard of the parameters holds a part: set trainer.strategy to ddp, or "
                "take a mixer, or its option, by sketches"
            )
        # A load-balancing loss would mix into what is read from training's backward.
        self._balances = bool(getattr(model, "balance_coefficient", 0))
        excess = self.mixer.request(ExcessLoss)
        if excess is not None:
            if not excess.reference:
                raise UserError(
                    f"{type(self.mixer).__name__} needs a reference model: set its `reference` to "
                    "a checkpoint"
                )
            assert data.store is not None
            same = getattr(model, "vocab_size", data.store.vocab_size), data.context
            self.reference = load_reference(excess.reference, *same, data.store.tokenizer_hash)
        if self.mixer.request(DomainGradients):
            self.gradients = DomainGradientSums(model.network.parameters(), len(data.domains))
        embedding = self.mixer.request(EmbeddingGradients)
        if embedding is not None:
            self.embeddings, self._probe_embeddings = (
                EmbeddingReader(model.network, embedding.rank, sketch.seed) for _ in range(2)
            )
        if self.mixer.request(Sketch) or observed:
            self.sketcher = SequenceSketcher(model.network, sketch)
            if isinstance(model, LanguageModel):  # which compiles what is not observed
                model.observed_modules = self.sketcher.observed

    def detach(self) -> None:
        """Removes the hooks from the model."""
        if self.sketcher is not None:
            self.sketcher.detach()
            self.sketcher = None
        for reader in (self.embeddings, self._probe_embeddings):
            if reader is not None:
                reader.detach()
        self.embeddings = self._probe_embeddings = None

    def record(self, step: int, observing: bool) -> None:
        """Has the coming forward recorded where the mixer or an observer needs its gradients."""
        self._forward = None
        if self.embeddings is not None and self.mixer.needs_at(step, EmbeddingGradients):
            self.embeddings.record()
        asked = self.mixer.needs_at(step, Sketch)
        if self.sketcher is not None and (asked or observing):
            self._forward = self.sketcher.record(self._mode(asked))

    def _mode(self, asked: bool) -> SketchMode:
        """Where sketches come from: what only looks at training must not change it by a bit."""
        # A scaler's small losses would be lost in the half precision of unscaled gradients.
        if self.loop.scaler is not None or self._balances:
            return SketchMode.OWN
        if not self.mixer.acts(LOSS):
            return SketchMode.READ
        return SketchMode.SHARED if asked and not self.loop.sharded else SketchMode.OWN

    def collect(
        self, batch: Batch, token_losses: Tensor, losses: Tensor, step: int, position: int
    ) -> BatchSignals:
        """Collects one micro-batch, the ``position``-th, from 0, of the optimiser step.

        ``token_losses`` (B, T) of this rank and their means ``losses`` (B,) come with their graph.
        """
        micro_batches = self.loop.micro_batches
        group = self.loop.optimizer.param_groups[0]
        sketch = self._sketch(losses, step)
        last = position == micro_batches - 1
        probed = self._probe(step, losses.device) if last else {}
        kernel, products = self._domain_kernel(batch, last, probed.pop("gradient", None))
        return BatchSignals(
            step=step,
            domain=self.loop.gather(batch.domain),
            sequence_loss=self.loop.gather(losses.detach()),
            sketch=sketch,
            excess_loss=self._excess_loss(batch, token_losses),
            domain_kernel=kernel,
            probe_products=products,
            alignment=self._alignment(step, losses.device) if last else None,
            step_domain=self._domains_of_step(micro_batches, position),
            learning_rate=float(group["lr"]),
            peak_learning_rate=float(group.get("initial_lr", group["lr"])),
            sequence_tokens=token_losses.shape[1],
            **probed,
        )

    def weigh(self, weights: Tensor, losses: Tensor) -> Tensor:
        """``Σ_i a_i ℓ_i`` of the micro-batch, by the backward that its sketches may have begun.

        ``weights`` (B,) are a of this rank, ``losses`` (B,) are ℓ with their graph.
        """
        # Once: what is shared with the sketches holds on to this batch.
        weighted_loss, self._weighted_loss = self._weighted_loss, weighted_sum
        self._own_weights = weights
        total = weighted_loss(weights, losses)
        if self._balances and self.embeddings is not None and self.embeddings.recorded:
            scaled = 1.0 if self.loop.scaler is None else self.loop.scaler.get_scale()
            self.embeddings.read_now((self._scale() * scaled * losses).sum())
        return total

    def before_backward(self) -> None:
        """Has the gradients read from the coming backward, where they come from there."""
        if self._reader is not None:
            self._reader.arm()
        if self.embeddings is not None and self.embeddings.recorded and not self._balances:
            self.embeddings.arm()

    def after_backward(self, signals: BatchSignals) -> bool:
        """Adds to a micro-batch's signals what its backward brought; says whether that is finite.

        All ranks' sequences have their part.
        """
        finite = []
        if self._reader is not None:
            reader, self._reader = self._reader, None
            signals.sketch = self._told(reader.sketch(self._scale()))
            finite.append(signals.sketch.isfinite().all())
        if self.embeddings is not None and self.embeddings.recorded:
            tokens, gradients = self.embeddings.take()
            gradients = self._unweighted(gradients, self._scale())
            read = self.loop.gather(tokens), self.loop.gather(gradients)
            signals.token_gradients = TokenGradients(signals.domain, *read)
            finite.append(read[1].isfinite().all())
        return all(map(bool, finite))

    def _scale(self) -> Tensor:
        """(B,) how much each own sequence's loss counts in the scalar that is differentiated."""
        return self._own_weights / self.loop.micro_batches

    def _unweighted(self, gradients: Tensor, scale: Tensor) -> Tensor:
        """(B, T, r) gradients of the losses themselves; 0 for a sequence that counts nothing."""
        scaler = self.loop.scaler
        if scaler is not None:
            scale = scale * scaler.get_scale()
        scale = scale.to(gradients)[:, None, None]
        return torch.where(scale > 0, gradients / scale.clamp(min=1e-30), 0.0)

    def _sketch(self, losses: Tensor, step: int) -> Tensor | None:
        """(B, k) sketches of all ranks' sequences; None where the backward will bring them."""
        forward, self._forward = self._forward, None
        self._weighted_loss, self._reader = weighted_sum, None
        if forward is None:
            return None
        if forward.mode is SketchMode.READ:
            self._reader = forward.reader(step)
            return None
        own, self._weighted_loss = forward.sketch_and_share(losses, step)
        return self._told(own)

    def _told(self, sketch: Tensor) -> Tensor:
        """(B, k) sketches of all ranks' sequences; the first time the log tells what they see."""
        if self.sketcher is not None and self.loop.rank == 0:
            self.sketcher.tell_coverage()
        return self.loop.gather(sketch)

    def _excess_loss(self, batch: Batch, token_losses: Tensor) -> Tensor | None:
        """(B,) mean over tokens of ``max(ℓ − ℓ_reference, 0)``, of all ranks."""
        if self.reference is None:
            return None
        self.reference.to(token_losses.device)
        with torch.no_grad():
            expected = self.reference.token_losses(batch.tokens)
            return self.loop.gather(clipped_excess(token_losses, expected))

    def _domain_kernel(
        self, batch: Batch, last: bool, probe: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """(S, S) of the whole optimiser step, with its last micro-batch; (S + 1,) of the probe.

        ``probe`` (P,) is the gradient of the probe's mean loss.
        """
        if self.gradients is None:
            return None, None

        def sequence_losses(rows: Tensor) -> Tensor:
            return self.model.token_losses(batch.tokens[rows]).mean(dim=1)

        self.gradients.add(batch.domain, sequence_losses)
        if not last:
            return None, None
        kernel = self.gradients.take_kernel(self.loop.total, probe)
        if probe is None:
            return kernel, None
        return kernel[:-1, :-1], kernel[:, -1]

    def _probe(self, step: int, device: torch.device) -> dict[str, Any]:
        """Signals of held-out sequences by name, the same on every rank; none where not asked.

        ``gradient`` (P,) is that of their mean loss.
        """
        if not self.mixer.needs_at(step, Probe):
            return {}
        batch, sketches = self.data.probe_batch(step), []
        if batch is None:
            return {}
        sketcher = self.sketcher if self.mixer.request(Sketch) else None
        if sketcher is None and self._probe_embeddings is None and self.gradients is None:
            return {"probe_domain": batch.domain}
        read: list[tuple[Tensor, Tensor]] = []
        gradients: list[Tensor] = []
        for tokens in batch.tokens.to(device).split(self.data.batch_size):
            if self._probe_embeddings is not None:
                self._probe_embeddings.record()
            forward = sketcher.record() if sketcher is not None else None
            losses = self.model.token_losses(tokens).mean(dim=1)
            if forward is not None:
                sketches.append(forward.sketch(losses, step))
            if self._probe_embeddings is not None:
                read.append(self._probe_embeddings.differentiate(losses))
            if self.gradients is not None:
                gradients.append(self.gradients.gradient_of(losses.sum() / len(batch.tokens)))
        probed: dict[str, Any] = {"probe_domain": batch.domain}
        if sketches:
            probed["probe_sketch"] = torch.cat(sketches)
        if read:
            tokens, rows = map(torch.cat, zip(*read, strict=True))
            probed["probe_gradients"] = TokenGradients(batch.domain, tokens, rows)
        if gradients:
            probed["gradient"] = torch.stack(gradients).sum(dim=0)
        return probed

    def _alignment(self, step: int, device: torch.device) -> Alignment | None:
        """Of sources and targets, the same on every rank; None where not asked."""
        if not self.mixer.request(AlignmentProbe) or not self.mixer.needs_at(step, Probe):
            return None
        sources, targets = self.data.source_batch(step), self.data.probe_batch(step)
        assert targets is not None
        return align(
            self.model.network.parameters(),
            lambda tokens: self.model.token_losses(tokens).mean(dim=1),
            (sources.domain, sources.tokens.to(device)),
            (targets.domain, targets.tokens.to(device)),
            len(self.data.domains),
            self.data.batch_size,
        )

    def _domains_of_step(self, micro_batches: int, position: int) -> Tensor | None:
        """(n,) domains of all ranks' sequences of the optimiser step."""
        if micro_batches == 1:
            return None
        if position == 0:
            coming = self.data.sampler.upcoming(micro_batches)
            self._step_domain = torch.tensor([domain for picks in coming for domain, _ in picks])
        return self._step_domain
