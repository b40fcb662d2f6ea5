"""DoGE: domain weights by the alignment of domains' gradients (Fan et al. 2024, 2310.15393)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dograph.errors import UserError, check_range
from dograph.graph.clusters import group_means
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
from dograph.mixers.simplex import trained_on, weights_by_name
from dograph.signals.batch_signals import BatchSignals, DomainGradients, Sketch, count_domains

LARGEST_SCORE = 5.0
"""Scores are clipped to [0, 5 lr], as in the authors' configurations."""


def clipping(kernel: Tensor, clip: float) -> Tensor:
    """(S,) ``min(1, clip / ‖G_s‖)``, which clip gradients of (S, S) products ``⟨G_s, G_t⟩``."""
    return (clip / kernel.diagonal().clamp(min=1e-30).sqrt()).clamp(max=1)


def alignment_scores(
    kernel: Tensor, target: Tensor, sources: Tensor, learning_rate: float
) -> Tensor:
    """DoGE's scores as its public code has them.

    ``clip(lr · ⟨G_s, Σ_t τ_t G_t⟩ / mean_s‖G_s‖, 0, 5 lr)``; the paper has no mean norm.

    Args:
        kernel: (S, S) inner products of clipped gradients.
        target: (S,) τ ≥ 0: ones for the universal target.
        sources: (S,) bool, domains that are trained on and present; the others score 0.
        learning_rate: of the step.

    Returns:
        (S,) in [0, 5 lr].
    """
    if not sources.any():
        return torch.zeros(len(kernel), dtype=kernel.dtype)
    mean_norm = kernel.diagonal()[sources].sqrt().mean()
    scores = learning_rate * (kernel @ target) / (mean_norm + 1e-6)
    return (scores.clamp(0, LARGEST_SCORE * learning_rate)) * sources


def mirror_descent(weights: Tensor, scores: Tensor, mu: float, smoothing: float) -> Tensor:
    """Mirror descent on the simplex: ``α ← (1 − ε) softmax(ln α + score / μ) + ε / S₊``.

    Args:
        weights: (S,) α on the simplex; what is 0 stays 0, S₊ domains are not.
        scores: (S,) ≥ 0.
        mu: μ > 0; small values move more.
        smoothing: ε in [0, 1].
    """
    alive = (weights > 0).to(weights.dtype)
    moved = torch.softmax(weights.log() + scores / mu, dim=0)
    return (1 - smoothing) * moved + smoothing * alive / alive.sum()


class DoGE(BaseMixer):
    """The proxy of DoGE: domains whose gradients point where the target's do count more.

    Each step, from one batch: ``G_s`` the gradient of domain s's mean loss, clipped;
    ``alignment_scores`` with the target; α by ``mirror_descent``; and the model's own step follows
    ``Σ_s α_s G_s`` with the new α. Sampling stays as ``prior`` says; the average of α over the
    steps is the result. A domain absent from a batch scores 0. With several micro-batches a step
    the losses are weighed by the α and clipping of the step before.

    Args:
        gradients: "exact": one backward a domain over all parameters, as published; "sketch":
            the sketches of ``sketch.blocks``, with no further forward.
        target: None: universal, all domains alike; a domain's name: out of domain, its sequences
            score and are never trained on; weights by name: any mixture of the domains (ours).
        mu: μ > 0; 0.01 published for the universal target, 0.05 out of domain.
        clip: largest norm of a domain's gradient; 5 published, 1 out of domain.
        smoothing: ε in [0, 1]; 0 published.
        prior: sampling weights by domain name, and the first α. None: uniform.

    Attributes:
        factors: (S,) float64 buffer, how much each domain's mean loss counts.
    """

    acts_on = frozenset({LOSS})
    whole_batch = False
    factors: Tensor

    def __init__(
        self,
        gradients: Literal["exact", "sketch"] = "exact",
        target: str | dict[str, float] | None = None,
        mu: float = 0.01,
        clip: float = 5.0,
        smoothing: float = 0.0,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(prior=prior)
        check_range("mixer.init_args.mu", mu, above=0)
        check_range("mixer.init_args.clip", clip, above=0)
        check_range("mixer.init_args.smoothing", smoothing, at_least=0, at_most=1)
        self.mu, self.clip, self.smoothing, self.target = mu, clip, smoothing, target
        self.needs = {DomainGradients() if gradients == "exact" else Sketch()}
        self._scores = torch.zeros(0)

    def initial_weights(self) -> Tensor:
        """(S,) the prior without an out-of-domain target, which is drawn but not trained on."""
        self.trained = trained_on(self.target, self.domains)
        weights = super().initial_weights() * self.trained
        if not weights.sum() > 0:
            raise UserError("prior gives no weight to any domain but the target")
        return weights / weights.sum()

    def reset(self) -> None:
        """Resolves the target."""
        self.target_mixture = self._target_mixture()
        if self.is_proxy:
            self.sampling_weights.copy_(super().initial_weights())
        if not self.sampling_weights[~self.trained].all():
            raise UserError(f"prior gives the target {self.target!r} no weight: it must be drawn")
        self.register_buffer("factors", self.weights.clone())

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) the next α; remembers how domains are to count while a batch is not yet whole."""
        weights, factors = self._next(signals)
        self.factors.copy_(factors)
        return weights

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) each domain's mean loss counts its new α times its clipping."""
        if signals.micro_batches > 1:
            return signals.per_domain(self.factors)
        return signals.per_domain(self._next(signals)[1])

    def diagnostics(self) -> dict[str, float]:
        """Every domain's last score, over the learning rate: in [0, 5]."""
        scores = zip(self.domains, self._scores.tolist(), strict=False)
        return {f"score/{name}": score for name, score in scores}

    def _target_mixture(self) -> Tensor:
        """(S,) τ, of sum S, or one for an out-of-domain target."""
        if isinstance(self.target, str):
            return (~self.trained).double()
        if self.target is None:
            return torch.ones(len(self.domains), dtype=torch.float64)
        return len(self.domains) * weights_by_name(self.target, self.domains, "target")

    def _next(self, signals: BatchSignals) -> tuple[Tensor, Tensor]:
        """(S,) the next α, and the same times each domain's clipping."""
        kernel = signals.domain_kernel
        if kernel is None:
            assert signals.sketch is not None
            kernel = sketched_kernel(signals.sketch, signals.domain, len(self.domains))
        kernel = kernel.to("cpu", torch.float64)
        factors = clipping(kernel, self.clip)
        clipped = kernel * factors[:, None] * factors[None, :]
        sources = self.trained & (count_domains(signals.domain, len(self.domains)) > 0)
        scores = alignment_scores(clipped, self.target_mixture, sources, signals.learning_rate)
        self._scores = scores / max(signals.learning_rate, 1e-30)
        weights = mirror_descent(self.weights, scores, self.mu, self.smoothing)
        return weights, weights * factors


class DoGEOnline(DoGE):
    """DoGE in one stage (ours): the weights go live to the sampler, losses count alike.

    Its arguments are ``DoGE``'s, except that no domain can be left out as a target, and:

    Args:
        gradients: "sketch" (nothing more to compute) or "exact".
        floor: in [0, 1): every domain keeps at least ``floor / S``, else one that is no longer
            drawn could never score again.
    """

    acts_on = frozenset({SAMPLING})

    def __init__(
        self,
        gradients: Literal["exact", "sketch"] = "sketch",
        target: dict[str, float] | None = None,
        mu: float = 0.05,
        clip: float = 5.0,
        smoothing: float = 0.0,
        prior: dict[str, float] | None = None,
        floor: float = 0.2,
    ) -> None:
        super().__init__(gradients, target, mu, clip, smoothing, prior)
        check_range("mixer.init_args.floor", floor, at_least=0, below=1)
        self.floor = floor


def sketched_kernel(sketch: Tensor, domain: Tensor, domains: int) -> Tensor:
    """(S, S) inner products of S domains' mean (B, k) sketches; zero for an absent domain."""
    means = group_means(sketch, domain, domains)
    return means @ means.T
