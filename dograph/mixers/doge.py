"""DoGE: domain weights by the alignment of domains' gradients (Fan et al. 2024, 2310.15393)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dograph.errors import UserError, check_choice, check_range
from dograph.graph.clusters import group_means
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
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

    The run's target: even is the published universal target, all domains alike; unseen domains are
    the published out-of-domain target: they are drawn, to score by, and never trained on. A mixture
    with domains that are trained on, and the worst domain (of the batch at hand), are ours.

    Args:
        gradients: "exact": one backward a domain over all parameters, as published; "sketch":
            the sketches of ``sketch.blocks``, with no further forward.
        mu: μ > 0; 0.01 published for the universal target, 0.05 out of domain.
        clip: largest norm of a domain's gradient; 5 published, 1 out of domain.
        smoothing: ε in [0, 1]; 0 published.
        prior: sampling weights by domain name, and the first α; an unseen target needs one to be
            drawn by. None: uniform over the domains that are trained on or in the target.

    Attributes:
        factors: (S,) float64 buffer, how much each domain's mean loss counts.
    """

    acts_on = frozenset({LOSS})
    whole_batch = False
    factors: Tensor

    def __init__(
        self,
        gradients: Literal["exact", "sketch"] = "exact",
        mu: float = 0.01,
        clip: float = 5.0,
        smoothing: float = 0.0,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(prior=prior)
        check_choice("mixer.init_args.gradients", gradients, ("exact", "sketch"))
        check_range("mixer.init_args.mu", mu, above=0)
        check_range("mixer.init_args.clip", clip, above=0)
        check_range("mixer.init_args.smoothing", smoothing, at_least=0, at_most=1)
        self.mu, self.clip, self.smoothing = mu, clip, smoothing
        self.needs = {DomainGradients() if gradients == "exact" else Sketch()}
        self._scores = torch.zeros(0)

    def reset(self) -> None:
        """Has an unseen target drawn, which scores and is not trained on."""
        scored = set(self.target.names(self.domains))
        needed = torch.tensor([name in scored for name in self.domains])
        if self.is_proxy:
            drawn = self.initial_weights() * (self.trained | needed)
            self.sampling_weights.copy_(drawn / drawn.sum())
        if self.target.mixture and not self.sampling_weights[needed & ~self.trained].all():
            raise UserError(self._undrawn())
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

    def target_mixture(self, losses: Tensor) -> Tensor:
        """(S,) τ: of sum 1 for an out-of-domain target, else one for each domain trained on.

        Args:
            losses: (S,) mean losses of the batch in nats, 0 for absent domains.
        """
        mixture = self.target.weights(self.domains, losses)
        if not mixture[self.trained].any():
            return mixture
        return mixture * self.trained.sum()

    def _undrawn(self) -> str:
        """What is wrong where an unseen target is not drawn."""
        wrong = f"target is {self.target.label}, which has unseen domains, and {self._name}"
        if self.is_proxy:
            return f"{wrong} has a mixer.init_args.prior that does not draw them: name them"
        return f"{wrong} scores only what it trains on: take DoGE, or change target or data.unseen"

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
        losses = signals.by_domain(signals.sequence_loss, absent=torch.zeros(len(self.domains)))
        target = self.target_mixture(losses)
        scores = alignment_scores(clipped, target, sources, signals.learning_rate)
        self._scores = scores / max(signals.learning_rate, 1e-30)
        weights = mirror_descent(self.weights, scores, self.mu, self.smoothing)
        return weights, weights * factors


class DoGEOnline(DoGE):
    """DoGE in one stage (ours): the weights go live to the sampler, losses count alike.

    It scores only what it trains on, so that its target has no unseen domains. Its arguments are
    ``DoGE``'s, and:

    Args:
        gradients: "sketch" (nothing more to compute) or "exact".
        floor: in [0, 1): every domain keeps at least ``floor / S``, else one that is no longer
            drawn could never score again.
    """

    acts_on = frozenset({SAMPLING})

    def __init__(
        self,
        gradients: Literal["exact", "sketch"] = "sketch",
        mu: float = 0.05,
        clip: float = 5.0,
        smoothing: float = 0.0,
        prior: dict[str, float] | None = None,
        floor: float = 0.2,
    ) -> None:
        super().__init__(gradients, mu, clip, smoothing, prior)
        check_range("mixer.init_args.floor", floor, at_least=0, below=1)
        self.floor = floor


def sketched_kernel(sketch: Tensor, domain: Tensor, domains: int) -> Tensor:
    """(S, S) inner products of S domains' mean (B, k) sketches; zero for an absent domain."""
    means = group_means(sketch, domain, domains)
    return means @ means.T
