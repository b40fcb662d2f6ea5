"""ADO: what is drawn by how fast domains' laws fall (Jiang et al. 2024, arXiv 2410.11820)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dograph.errors import UserError, check_range
from dograph.mixers.base import BaseMixer
from dograph.mixers.loss_law import fit_law, smoothed
from dograph.signals.batch_signals import BatchSignals, count_domains

LEAST_EXPONENT = 0.05
"""Exponents count at least so much, as in the authors' code."""
LEAST_POINTS = 3
"""Points that a law is fitted to at least, as many as it has parameters (ours)."""


def preference(
    law: Tensor, drawn: float, prior: Tensor, recent: Tensor, power: float, least: float
) -> Tensor:
    """ADO's ρ: the falls of the domains' losses by one more sequence, with prior and credit.

    ``ρ_s ∝ μ_s h_s^p max(α_s, 0.05) (L_s − e^{ε_s}) / n``, ``L_s = e^{ε_s} + e^{a_s} / n^{α_s}`` by
    the law; then at least δ each, and normalised. Where no loss falls any more, ρ is the prior.

    Args:
        law: (S, 3) a, ε and α of each domain.
        drawn: n > 0, sequences of all domains that were trained on.
        prior: (S,) μ on the simplex; what is 0 stays 0.
        recent: (S,) h ≥ 0, share of each domain in recent batches.
        power: p ≥ 0.
        least: δ ≥ 0.
    """
    alive = prior > 0
    reducible = torch.exp(law[:, 0] - law[:, 2] * math.log(drawn))
    falls = prior * recent**power * law[:, 2].clamp(min=LEAST_EXPONENT) * reducible / drawn
    falls = falls.where(alive, 0.0)
    if not falls.sum() > 0:
        falls = prior
    kept = 1 - max(least * int(alive.sum()) - 1, 0)
    raised = (kept * falls / falls.sum()).clamp(min=least) * alive
    return raised / raised.sum()


class ADO(BaseMixer):
    """Draws more of the domains whose losses still fall.

    Every step records the domains' mean losses; every ``refit_every`` steps a power law of the
    sequences trained on is fitted to each domain's (``loss_law.fit_law``), after smoothing, without
    the first ``ignore`` steps, to every ``stride``-th. From the first fit on, each step has a
    ``preference`` ρ and the weights ``γ₂ ρ + (1 − γ₂) π̄``, π̄ being the mean of the prior (of as
    many steps as are done) and of all ρ since. A domain that is absent from a batch is recorded
    with its last loss, and its share of recent batches falls.

    Args:
        start: optimiser steps that draw by the prior; 500 published, of 60,000.
        refit_every: optimiser steps between two fits; 1,000 published.
        ignore: first optimiser steps that no law is fitted to; 1,000 published.
        window: steps of the smoothing, odd, ≥ 5; 101 published.
        stride: the fit takes every so many steps; 10 published.
        gamma1: γ₁ in (0, 1], how fast shares of recent batches change; 0.1 published.
        gamma2: γ₂ in [0, 1]; 0.1 published.
        power: p ≥ 0 of the share of recent batches; 0.5 published.
        least: δ in [0, 1), the least ρ; 0.01 published.
        prior: μ by domain name. None: the domains' shares of the training tokens, as published.

    Attributes:
        law: (S, 3) float64 buffer, each domain's a, ε and α; NaN before the first fit.
        recent: (S,) float64 buffer h.
        mean_preference: (S,) float64 buffer π̄.
        start_weights: (S,) float64 buffer μ, 0 for unseen domains.
    """

    law: Tensor
    recent: Tensor
    mean_preference: Tensor
    start_weights: Tensor

    def __init__(
        self,
        start: int = 500,
        refit_every: int = 1000,
        ignore: int = 1000,
        window: int = 101,
        stride: int = 10,
        gamma1: float = 0.1,
        gamma2: float = 0.1,
        power: float = 0.5,
        least: float = 0.01,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(prior=prior)
        key = "mixer.init_args."
        for name, value in (("start", start), ("ignore", ignore), ("power", power)):
            check_range(key + name, value, at_least=0)
        for name, value in (("refit_every", refit_every), ("stride", stride)):
            check_range(key + name, value, at_least=1)
        check_range(f"{key}window", window, at_least=5)
        if window % 2 == 0:
            raise UserError(f"{key}window is {window}: it must be odd")
        check_range(f"{key}gamma1", gamma1, above=0, at_most=1)
        check_range(f"{key}gamma2", gamma2, at_least=0, at_most=1)
        check_range(f"{key}least", least, at_least=0, below=1)
        self.start, self.refit_every, self.ignore = start, refit_every, ignore
        self.window, self.stride = window, stride
        self.gamma1, self.gamma2, self.power, self.least = gamma1, gamma2, power, least
        self._least_recorded = max(window, ignore + stride * (LEAST_POINTS - 1) + 1)
        self.acts_from = -(-max(start, self._least_recorded - 1) // refit_every) * refit_every

    def default_prior(self) -> Tensor:
        """(S,) shares of the training tokens."""
        tokens = torch.tensor(self.domain_tokens, dtype=torch.float64)
        return tokens / tokens.sum()

    def reset(self) -> None:
        """Starts without losses and laws."""
        for name in ("recent", "mean_preference", "start_weights"):
            self.register_buffer(name, self.weights.clone())
        self.register_buffer("law", torch.full((len(self.weights), 3), torch.nan).double())
        self._losses = torch.zeros(64, len(self.weights))  # grows by doubling
        self._recorded = 0

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) the next weights; those before until the first fit."""
        self._record(signals)
        counts = count_domains(signals.domain, len(self.domains))
        self.recent += self.gamma1 * (counts / counts.sum() - self.recent)
        drawn, step = self._recorded * signals.batch_size, signals.step
        if step >= self.start and step % self.refit_every == 0:
            self._refit(signals.batch_size)
        prior = self.start_weights
        if step < self.start or not self.law[prior > 0].isfinite().all():
            return self.weights
        given = self.law, drawn, prior, self.recent, self.power, self.least
        latest = preference(*given)
        weights = self.gamma2 * latest + (1 - self.gamma2) * self.mean_preference
        self.mean_preference += (latest - self.mean_preference) / (step + 1)
        return weights

    def diagnostics(self) -> dict[str, float]:
        """Every domain's exponent and irreducible loss in nats, once there is a law."""
        shown: dict[str, float] = {}
        for name, law in zip(self.domains, self.law, strict=True):
            if law.isfinite().all():
                shown[f"exponent/{name}"] = law[2].item()
                shown[f"irreducible/{name}"] = law[1].exp().item()
        return shown

    def _record(self, signals: BatchSignals) -> None:
        """Adds the batch's mean losses; the first of an absent domain is the batch's own."""
        if self._recorded == len(self._losses):
            self._losses = torch.cat([self._losses, torch.zeros_like(self._losses)])
        last = self._losses[self._recorded - 1]
        if not self._recorded:
            last = signals.sequence_loss.mean().cpu().expand(len(self.domains))
        losses = signals.by_domain(signals.sequence_loss, absent=last)
        self._losses[self._recorded] = losses.float()
        self._recorded += 1

    def _refit(self, batch_size: int) -> None:
        """Fits the laws anew; a fit that fails for one domain leaves all as they were."""
        if self._recorded < self._least_recorded:
            return
        losses = smoothed(self._losses[: self._recorded].double().numpy(), self.window)
        chosen = torch.arange(self.ignore, self._recorded, self.stride)
        drawn = ((chosen + 1) * batch_size).double().numpy()
        law = torch.full_like(self.law, torch.nan)
        alive = (self.start_weights > 0).nonzero().flatten().tolist()
        for index in alive:
            law[index] = torch.from_numpy(fit_law(drawn, losses[chosen.numpy(), index]))
        if law[alive].isfinite().all():
            self.law.copy_(law)
