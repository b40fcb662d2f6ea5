"""What a mixer sees of training."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class Signal(Enum):
    """What training must gather for a mixer beyond each sequence's loss and domain."""

    SKETCH = "sketch"
    """A gradient sketch of every sequence."""
    EXCESS_LOSS = "excess loss"
    """Token losses above those of a frozen reference model; the mixer's ``reference`` names it."""
    PROBE = "probe"
    """Sketches of sequences that are held out of training."""
    DOMAIN_GRADIENTS = "domain gradients"
    """Inner products of the domains' exact gradients."""


@dataclass
class BatchSignals:
    """What a mixer sees of B sequences of all ranks, all of it detached.

    Before the backward that is one micro-batch, after the optimiser step the whole batch.

    Attributes:
        step: optimiser steps done before this batch.
        domain: (B,) int64, index of each sequence's domain.
        sequence_loss: (B,) float32, mean token loss in nats.
        sketch: (B, k) float32 gradient sketches, where the mixer needs ``Signal.SKETCH``.
        excess_loss: (B,) float32, mean over tokens of ``max(ℓ − ℓ_reference, 0)`` in nats, where
            it needs ``Signal.EXCESS_LOSS``.
        domain_kernel: (S, S) float32, ``⟨G_s, G_t⟩`` of the gradients of the domains' mean losses,
            where it needs ``Signal.DOMAIN_GRADIENTS``; zero for a domain that is absent. With
            several micro-batches it is there only once all of them are done.
        loss_weights: (B,) float32, how the losses were weighted; known once weighted.
        probe_sketch: (p, k) float32 sketches of held-out sequences, where it needs
            ``Signal.PROBE``.
        probe_domain: (p,) int64, their domains.
        step_domain: (n,) int64, domains of all sequences of this optimiser step, micro-batches
            to come included. None: those of ``domain``.
        learning_rate: of this optimiser step.
    """

    step: int
    domain: Tensor
    sequence_loss: Tensor
    sketch: Tensor | None = None
    loss_weights: Tensor | None = None
    excess_loss: Tensor | None = None
    domain_kernel: Tensor | None = None
    probe_sketch: Tensor | None = None
    probe_domain: Tensor | None = None
    step_domain: Tensor | None = None
    learning_rate: float = 0.0

    @property
    def batch_size(self) -> int:
        """Number of sequences B."""
        return self.domain.numel()

    @property
    def micro_batches(self) -> int:
        """Parts of this size that the optimiser step's batch has."""
        return 1 if self.step_domain is None else self.step_domain.numel() // self.domain.numel()

    @property
    def finite(self) -> bool:
        """Whether every loss and signal is; waits for the device, once."""
        signals = (
            self.sequence_loss,
            self.sketch,
            self.excess_loss,
            self.domain_kernel,
            self.probe_sketch,
        )
        device = self.sequence_loss.device
        found = [signal.isfinite().all().to(device) for signal in signals if signal is not None]
        return bool(torch.stack(found).all())
