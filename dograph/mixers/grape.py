"""GRAPE: domain weights robust over several targets (Fan et al. 2025, arXiv 2505.20380)."""

from __future__ import annotations

import torch
from torch import Tensor

from dograph.errors import check_range, check_whole
from dograph.mixers.base import BaseMixer
from dograph.mixers.doge import clipping, mirror_descent
from dograph.signals.alignment import Alignment
from dograph.signals.batch_signals import AlignmentProbe, BatchSignals

HELD_OUT = 8
"""Held-out sequences of a target for each that an update takes."""


def log_alignment(alignment: Alignment, clip: float) -> Tensor:
    """(S, S) float64 ``⟨g_s, ∇log l_t⟩`` of sources and targets, both gradients clipped.

    ``∇log l_t = ∇l_t / l_t``: a target improves by a share of its loss, whatever that is. Zero for
    a domain that is no target.

    Args:
        alignment: of the gradients of losses.
        clip: largest norm of a gradient, > 0.
    """
    given = (part.to("cpu", torch.float64) for part in vars(alignment).values())
    products, source_squares, target_squares, losses = given
    inverse = torch.where(losses > 0, 1 / losses, 0.0)
    targets = inverse * clipping(target_squares * inverse.square(), clip)
    return clipping(source_squares, clip)[:, None] * products * targets


class GRAPE(BaseMixer):
    """Draws what helps the targets that improve least.

    Every ``update_every`` steps, with ``f_st = ⟨g_s, ∇log l_t⟩`` of source s and target t: the
    target's weights go to those that training by α improves least,
    ``ln z_t ← ln z_t − γ_z Σ_s α_s f_st``, smoothed; then the sources' to those that help them,
    ``ln α_s ← ln α_s + γ_α Σ_t z_t f_st``. ``g_s`` is the gradient of training sequences, ``l_t``
    the loss of held-out ones; losses of the batch count alike.

    The run's target says which domains are targets, and where z begins; unseen ones may be among
    them. With a single target z stays 1.

    Args:
        step_size: γ_α > 0, published γ/μ_α.
        target_step_size: γ_z > 0, published γ/μ_z.
        smoothing: ε in [0, 1], the share of z that is spread evenly over the targets.
        clip: largest norm of a gradient, > 0.
        probe: sequences of each source and of each target that an update takes, ≥ 1.
        update_every: optimiser steps between two updates, ≥ 1.
        prior: first α by domain name. None: uniform.

    Attributes:
        target_weights: (S,) float64 buffer on the simplex, z; 0 for domains that are no target.
    """

    target_weights: Tensor

    def __init__(
        self,
        step_size: float = 1.5,
        target_step_size: float = 10.0,
        smoothing: float = 0.001,
        clip: float = 1.0,
        probe: int = 8,
        update_every: int = 100,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(update_every=update_every, prior=prior)
        sizes = {"step_size": step_size, "target_step_size": target_step_size, "clip": clip}
        for key, value in sizes.items():
            check_range(f"mixer.init_args.{key}", value, above=0)
        check_range("mixer.init_args.smoothing", smoothing, at_least=0, at_most=1)
        check_whole("mixer.init_args.probe", probe, at_least=1)
        self.step_size, self.target_step_size = step_size, target_step_size
        self.smoothing, self.clip = smoothing, clip
        self.needs = {AlignmentProbe(HELD_OUT * probe, probe)}

    def reset(self) -> None:
        """Starts with the target's own weights."""
        self.register_buffer("target_weights", self.target.weights(self.domains))

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) the next α, by the next z."""
        assert signals.alignment is not None
        aligned = log_alignment(signals.alignment, self.clip)
        slowness = -self.target_step_size * (self.weights @ aligned)
        targets = mirror_descent(self.target_weights, slowness, 1.0, self.smoothing)
        self.target_weights.copy_(targets)
        return mirror_descent(self.weights, self.step_size * (aligned @ targets), 1.0, 0.0)

    def diagnostics(self) -> dict[str, float]:
        """Every target's weight."""
        weights = zip(self.domains, self.target_weights.tolist(), strict=True)
        named = self.target.names(self.domains)
        return {f"target_weight/{name}": weight for name, weight in weights if name in named}
