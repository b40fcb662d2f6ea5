"""DoGE: domain weights by the alignment of gradients (Fan et al. 2024, arXiv 2310.15393)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dograph.errors import check_choice, check_range
from dograph.graph.clusters import group_means
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
from dograph.signals.batch_signals import (
    BatchSignals,
    DomainGradients,
    Probe,
    Sketch,
    count_domains,
)

LARGEST_SCORE = 5.0
"""Scores are clipped to [0, 5 lr], as in the authors' configurations."""
PUBLISHED = (0.01 / 5e-4, 5.0)
"""μ over the peak learning rate, and the largest norm of a gradient (doge.json)."""
PUBLISHED_OUT_OF_DOMAIN = (0.05 / 5e-4, 1.0)
"""The same for an unseen target (doge_ood)."""
HELD_OUT = 16
"""Held-out sequences of a domain for each that a step may take."""


def clipping(squared_norms: Tensor, clip: float) -> Tensor:
    """(S,) ``min(1, clip / ‖G_s‖)``, which clip gradients of (S,) squared norms ``‖G_s‖²``."""
    return (clip / squared_norms.clamp(min=1e-30).sqrt()).clamp(max=1)


def alignment_scores(
    alignment: Tensor, norms: Tensor, sources: Tensor, learning_rate: float
) -> Tensor:
    """DoGE's scores as its public code has them.

    ``clip(lr · ⟨G_s, G⟩ / mean_s‖G_s‖, 0, 5 lr)``; the paper has no mean norm.

    Args:
        alignment: (S,) ``⟨G_s, G⟩`` with the target's gradient G, all of them clipped.
        norms: (S,) ``‖G_s‖``, clipped.
        sources: (S,) bool, domains that are trained on and present: the mean is theirs, and the
            others score 0.
        learning_rate: of the step.

    Returns:
        (S,) in [0, 5 lr].
    """
    if not sources.any():
        return torch.zeros_like(alignment)
    scores = learning_rate * alignment / (norms[sources].mean() + 1e-6)
    return scores.clamp(0, LARGEST_SCORE * learning_rate) * sources


def mirror_descent(weights: Tensor, scores: Tensor, mu: float, smoothing: float) -> Tensor:
    """Mirror descent on the simplex: ``α ← (1 − ε) softmax(ln α + score / μ) + ε / S₊``.

    Args:
        weights: (S,) α on the simplex; what is 0 stays 0, S₊ domains are not.
        scores: (S,).
        mu: μ > 0; small values move more.
        smoothing: ε in [0, 1].
    """
    alive = (weights > 0).to(weights.dtype)
    moved = torch.softmax(weights.log() + scores / mu, dim=0)
    return (1 - smoothing) * moved + smoothing * alive / alive.sum()


class DoGE(BaseMixer):
    """The proxy of DoGE: domains whose gradients point where the target's does count more.

    Each step, from one batch: ``G_s`` the gradient of domain s's mean loss, clipped;
    ``alignment_scores`` with the target's gradient, clipped, too; α by ``mirror_descent``; and the
    model's own step follows ``Σ_s α_s G_s`` with the new α. Sampling stays as ``prior`` says; the
    average of α over the steps is the result. A domain absent from a batch scores 0. With several
    micro-batches a step the losses are weighed by the α and clipping of the step before.

    The run's target: even is the published universal target, an unseen domain the published
    out-of-domain one; mixtures, and the worst domain of the batch at hand, are ours.

    Args:
        gradients: "exact": one backward a domain over all parameters, as published; "sketch":
            the sketches of ``sketch.blocks``, with no further forward of the batch.
        universal: the target's gradient G. "mix": of one mean loss over ``probe`` held-out
            sequences, drawn by the target's weights τ, as the authors' runs; "all": the sum
            ``S Σ_t τ_t G_t`` of the batch's own, as the paper's formula. A target with unseen
            domains is always a held-out mix, the worst domain always the batch's own.
        mu: μ > 0. None: as published, 20 times the peak learning rate (0.01 at 5e-4), out of
            domain 100 times (0.05), since what counts is their ratio.
        clip: largest norm of a gradient. None: as published, 5, out of domain 1.
        smoothing: ε in [0, 1]; 0 published.
        prior: sampling weights by domain name, and the first α. None: uniform.
        probe: held-out sequences a step, ≥ 1; published is about 4, 1 of 8 parts of 32.

    Attributes:
        factors: (S,) float64 buffer, how much each domain's mean loss counts.
    """

    acts_on = frozenset({LOSS})
    whole_batch = False
    factors: Tensor

    def __init__(
        self,
        gradients: Literal["exact", "sketch"] = "exact",
        universal: Literal["mix", "all"] = "mix",
        mu: float | None = None,
        clip: float | None = None,
        smoothing: float = 0.0,
        prior: dict[str, float] | None = None,
        probe: int = 4,
    ) -> None:
        super().__init__(prior=prior)
        check_choice("mixer.init_args.gradients", gradients, ("exact", "sketch"))
        check_choice("mixer.init_args.universal", universal, ("mix", "all"))
        for key, value in (("mu", mu), ("clip", clip)):
            if value is not None:
                check_range(f"mixer.init_args.{key}", value, above=0)
        check_range("mixer.init_args.smoothing", smoothing, at_least=0, at_most=1)
        check_range("mixer.init_args.probe", probe, at_least=1)
        self.universal, self.mu, self.clip, self.smoothing = universal, mu, clip, smoothing
        kind = DomainGradients() if gradients == "exact" else Sketch()
        self.needs = {kind, Probe(HELD_OUT * probe, probe, by_target=True)}
        self._scores = torch.zeros(0)

    def reset(self) -> None:
        """Starts without clipping."""
        self.register_buffer("factors", self.weights.clone())

    def probes(self, domain: str) -> bool:
        """Whether a domain is in a target that is a held-out mix."""
        return self.holds_out and domain in self.target.names(self.domains)

    @property
    def holds_out(self) -> bool:
        """Whether the target's gradient is that of a held-out mix."""
        mix = self.universal == "mix" and not self.target.is_worst
        return mix or self.out_of_domain

    @property
    def out_of_domain(self) -> bool:
        """Whether an unseen domain counts in the target."""
        return any(name in self.unseen for name in self.target.mixture)

    def settings(self, peak_learning_rate: float) -> tuple[float, float]:
        """μ and the largest norm of a gradient."""
        ratio, clip = PUBLISHED_OUT_OF_DOMAIN if self.out_of_domain else PUBLISHED
        mu = ratio * peak_learning_rate if self.mu is None else self.mu
        return mu, clip if self.clip is None else self.clip

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

    def _next(self, signals: BatchSignals) -> tuple[Tensor, Tensor]:
        """(S,) the next α, and the same times each domain's clipping."""
        kernel, products = self._products(signals)
        mu, clip = self.settings(signals.peak_learning_rate)
        factors = clipping(kernel.diagonal(), clip)
        if self.holds_out:
            assert products is not None
            alignment = factors * products[:-1] * clipping(products[-1:], clip)
        else:
            alignment = factors * (kernel @ (factors * self._summands(signals)))
        norms = factors * kernel.diagonal().sqrt()
        sources = self.trained & (count_domains(signals.domain, len(self.domains)) > 0)
        scores = alignment_scores(alignment, norms, sources, signals.learning_rate)
        self._scores = scores / max(signals.learning_rate, 1e-30)
        weights = mirror_descent(self.weights, scores, mu, self.smoothing)
        return weights, weights * factors

    def _products(self, signals: BatchSignals) -> tuple[Tensor, Tensor | None]:
        """Inner products, float64 on the CPU.

        Returns:
            (S, S) of the domains' gradients; (S + 1,) of the held-out mix's with them and with
            itself, None where nothing is held out.
        """
        kernel, products = signals.domain_kernel, signals.probe_products
        if kernel is None:
            assert signals.sketch is not None
            kernel = sketched_kernel(signals.sketch, signals.domain, len(self.domains))
            if signals.probe_sketch is not None and len(signals.probe_sketch):
                means = group_means(signals.sketch, signals.domain, len(self.domains))
                mix = signals.probe_sketch.mean(dim=0)
                products = torch.cat([means @ mix, (mix @ mix)[None]])
        exact = None if products is None else products.to("cpu", torch.float64)
        return kernel.to("cpu", torch.float64), exact

    def _summands(self, signals: BatchSignals) -> Tensor:
        """(S,) how often each of the batch's own gradients is in the target's."""
        losses = signals.by_domain(signals.sequence_loss, absent=torch.zeros(len(self.domains)))
        mixture = self.target.weights(self.domains, losses)
        return mixture * self.trained.sum() if self.universal == "all" else mixture


class DoGEOnline(DoGE):
    """DoGE in one stage (ours): the weights go live to the sampler, losses count alike.

    Its arguments are ``DoGE``'s, and:

    Args:
        gradients: "sketch" or "exact".
        universal: "all": with sketches there is nothing more to compute; or "mix".
        floor: in [0, 1): every domain keeps at least ``floor / S``, else one that is no longer
            drawn could never score again.
    """

    acts_on = frozenset({SAMPLING})

    def __init__(
        self,
        gradients: Literal["exact", "sketch"] = "sketch",
        universal: Literal["mix", "all"] = "all",
        mu: float = 0.05,
        clip: float = 5.0,
        smoothing: float = 0.0,
        prior: dict[str, float] | None = None,
        probe: int = 4,
        floor: float = 0.2,
    ) -> None:
        super().__init__(gradients, universal, mu, clip, smoothing, prior, probe)
        check_range("mixer.init_args.floor", floor, at_least=0, below=1)
        self.floor = floor


def sketched_kernel(sketch: Tensor, domain: Tensor, domains: int) -> Tensor:
    """(S, S) inner products of S domains' mean (B, k) sketches; zero for an absent domain."""
    means = group_means(sketch, domain, domains)
    return means @ means.T
