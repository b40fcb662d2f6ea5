"""Dynamic loss-based re-weighting of sequences (Sow et al. 2025, arXiv 2502.06733)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from dograph.errors import check_choice, check_range
from dograph.mixers.base import BaseMixer
from dograph.signals.batch_signals import BatchSignals

Strategy = Literal["linupper", "extremes"]


def scaled_loss_weights(losses: Tensor, strategy: Strategy, temperature: float) -> Tensor:
    """Weights by scaled losses: ``softmax(f(h) / r)``, h the losses scaled linearly to [−1, 1].

    Args:
        losses: (B,) mean token losses of the global batch.
        strategy: "linupper": ``f = min(h + 1, 1)``, all above the middle count alike and the
            easy ones less; "extremes": ``f = |h|``, the easy and the hard ones count more.
        temperature: r > 0; large values tend to uniform weights.

    Returns:
        (B,) on the simplex; uniform where all losses are equal.

    >>> weights = scaled_loss_weights(torch.tensor([1.0, 2.0, 3.0]), "linupper", 0.4)
    >>> [round(weight, 4) for weight in weights.tolist()]
    [0.0394, 0.4803, 0.4803]
    """
    exact = losses.to(torch.float64)
    least, most = exact.min(), exact.max()
    scaled = (2 * exact - most - least) / (most - least).clamp(min=1e-6)
    raised = (scaled + 1).clamp(max=1) if strategy == "linupper" else scaled.abs()
    return torch.softmax(raised / temperature, dim=0)


class DynamicLoss(BaseMixer):
    """Re-weights every batch by its sequences' own losses; no domain, no proxy, no reference.

    After ``warmup`` steps sequence i counts ``scaled_loss_weights(ℓ)_i``. Sampling stays as
    ``prior`` says. With several micro-batches a step each is weighed by itself.

    Args:
        strategy: "linupper" (the paper's best) or "extremes".
        temperature: r > 0; 0.4 in the paper.
        warmup: optimiser steps of uniform weights; 1,000 in the paper, of 20,000.
        prior: sampling weights by domain name. None: uniform.
    """

    def __init__(
        self,
        strategy: Strategy = "linupper",
        temperature: float = 0.4,
        warmup: int = 1000,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(warmup=warmup, prior=prior)
        check_choice("mixer.init_args.strategy", strategy, get_args(Strategy))
        check_range("mixer.init_args.temperature", temperature, above=0)
        self.strategy: Strategy = strategy
        self.temperature = temperature
        self._effective_sequences = 0.0

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) by scaled losses, on the simplex."""
        weights = scaled_loss_weights(signals.sequence_loss, self.strategy, self.temperature)
        self._effective_sequences = 1 / weights.square().sum().item()
        return weights

    def diagnostics(self) -> dict[str, float]:
        """Effective sequences of the last weighted batch, ``1 / Σ_i a_i²``."""
        if not self._effective_sequences:
            return {}
        return {"effective_sequences": self._effective_sequences}
