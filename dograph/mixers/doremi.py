"""DoReMi: domain weights by group DRO over excess loss (Xie et al. 2023, arXiv 2305.10429)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dograph.errors import check_choice, check_range
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
from dograph.signals.batch_signals import BatchSignals, ExcessLoss, count_domains


def exponentiated_gradient(
    weights: Tensor,
    scores: Tensor,
    step_size: float,
    smoothing: float,
    present: Tensor | None = None,
) -> Tensor:
    """DoReMi's update (Algorithm 1): ``α ← (1 − c) α e^{ηλ} / Σ α e^{ηλ} + c / S``.

    Args:
        weights: (S,) α on the simplex.
        scores: (S,) λ, mean clipped excess loss of each domain in nats.
        step_size: η ≥ 0.
        smoothing: c in [0, 1].
        present: (S,) bool, the domains with a score; the others keep their weight, and those with
            one share the rest by the formula, S being their number. None: all have one. What is 0
            stays 0.

    Returns:
        (S,) the new α, computed in log space.

    >>> scores = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)
    >>> exponentiated_gradient(torch.full((2,), 0.5, dtype=torch.float64), scores, 1, 0)
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    alive = weights > 0
    moving = alive if present is None else alive & present
    if not moving.any():
        return weights
    moved = torch.softmax((weights.log() + step_size * scores).where(moving, -torch.inf), dim=0)
    shared = moving.to(moved.dtype)
    proposed = (1 - smoothing) * moved + smoothing * shared / shared.sum()
    if torch.equal(moving, alive):
        return proposed
    return torch.where(moving, weights[moving].sum() * proposed, weights)


class DoReMi(BaseMixer):
    """The proxy of DoReMi: the domains that a reference model shows to be learnable count more.

    Each step, with ``λ_s`` the mean over domain s's tokens of ``max(ℓ_θ − ℓ_reference, 0)``
    (``batch_signals.clipped_excess``), α is multiplied by ``e^{ηλ}``
    (``exponentiated_gradient``), and the new α weighs the batch's losses. A domain that is absent
    from the batch keeps its α: nothing is known of it. Sampling stays as ``prior`` says; the
    average of α over the steps is the result, for a main run to draw by.

    With several micro-batches a step the losses are weighed by the α of the step before, since
    λ is known only once all micro-batches are done; the update itself is the same.

    Args:
        reference: checkpoint of the frozen reference model.
        step_size: η ≥ 0; 1 in the paper.
        smoothing: c in [0, 1]; 1e-3 in the paper.
        normalise: "paper": each domain's mean loss counts ``α_s``, absent domains leave their
            share out; "repository": every token counts ``α_s / p_s``, p being what is drawn,
            over the sum of the batch's, as the authors' public code does.
        prior: sampling weights by domain name, and the first α. None: uniform.

    Attributes:
        scores: (S,) float64 buffer, each domain's last λ; infinite where it never had one.
    """

    acts_on = frozenset({LOSS})
    whole_batch = False
    scores: Tensor

    def __init__(
        self,
        reference: str,
        step_size: float = 1.0,
        smoothing: float = 1e-3,
        normalise: Literal["paper", "repository"] = "paper",
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(prior=prior)
        check_range("mixer.init_args.step_size", step_size, at_least=0)
        check_range("mixer.init_args.smoothing", smoothing, at_least=0, at_most=1)
        check_choice("mixer.init_args.normalise", normalise, ("paper", "repository"))
        self.needs = {ExcessLoss(reference)}
        self.step_size, self.smoothing, self.normalise = step_size, smoothing, normalise

    def reset(self) -> None:
        """Starts without scores."""
        self.register_buffer("scores", torch.full_like(self.weights, torch.inf))

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) the next α; remembers the scores."""
        self.scores.copy_(self._scores(signals))
        return self._next(signals)

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) the batch's losses weighed by the α that this batch leads to."""
        weights = self.weights
        if signals.micro_batches == 1:
            weights = self._next(signals)
        if self.normalise == "paper":
            return signals.per_domain(weights)
        return signals.per_sequence(weights / self.sampling_weights.clamp(min=1e-12))

    def diagnostics(self) -> dict[str, float]:
        """Last score λ of every domain that had one, in nats."""
        scores = zip(self.domains, self.scores.tolist(), strict=True)
        return {f"excess_loss/{name}": score for name, score in scores if math.isfinite(score)}

    def _next(self, signals: BatchSignals) -> Tensor:
        """(S,) the next α; only the batch's own domains move."""
        factors = self.step_size, self.smoothing
        present = count_domains(signals.domain, len(self.domains)) > 0
        return exponentiated_gradient(self.weights, self._scores(signals), *factors, present)

    def _scores(self, signals: BatchSignals) -> Tensor:
        assert signals.excess_loss is not None
        return signals.by_domain(signals.excess_loss, absent=self.scores)


class DoReMiOnline(DoReMi):
    """DoReMi in one stage (ours): the weights go live to the sampler, losses count alike.

    Without a ``reference`` the excess is over nothing, i.e. the loss itself: group DRO by sampling
    (Sagawa et al. 2020). Its scores differ by whole nats, so take a small ``step_size``.

    Its other arguments are ``DoReMi``'s; ``smoothing`` keeps domains from vanishing.

    Args:
        reference: checkpoint of a reference model. None: scores are the losses.
        floor: in [0, 1): every domain keeps at least ``floor / S``.
    """

    acts_on = frozenset({SAMPLING})

    def __init__(
        self,
        reference: str | None = None,
        step_size: float = 0.02,
        smoothing: float = 0.02,
        prior: dict[str, float] | None = None,
        floor: float = 0.1,
    ) -> None:
        super().__init__(reference or "", step_size, smoothing, prior=prior)
        check_range("mixer.init_args.floor", floor, at_least=0, below=1)
        self.floor = floor
        if reference is None:
            self.needs = frozenset()

    def _scores(self, signals: BatchSignals) -> Tensor:
        losses = signals.excess_loss if self.needs else signals.sequence_loss
        assert losses is not None
        return signals.by_domain(losses, absent=self.scores)
