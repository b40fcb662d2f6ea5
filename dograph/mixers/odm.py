"""ODM: a bandit that training losses reward (Albalak et al. 2023, arXiv 2312.02406)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from dograph.errors import check_choice, check_range
from dograph.mixers.base import BaseMixer
from dograph.signals.batch_signals import BatchSignals, count_domains

Estimate = Literal["smoothed_mean", "exp3", "paper"]


def exploration_rate(domains: int, step: int) -> float:
    """The least weight of each of K domains at step t ≥ 1: ``ε_t = min(1/K, √(ln K / (K t)))``."""
    return min(1 / domains, math.sqrt(math.log(domains) / (domains * step)))


def estimated_rewards(
    rewards: Tensor, losses: Tensor, weights: Tensor, estimate: Estimate, smoothing: float
) -> Tensor:
    """(S,) the rewards R̂ after domains were seen, by their former R̂, losses ℓ and weights α.

    "smoothed_mean": ``ξ R̂ + (1 − ξ) e^ℓ``; "exp3": ``R̂ + (ℓ / 10) / α``; "paper":
    ``ξ R̂ + (1 − ξ) ℓ / α``.
    """
    if estimate == "exp3":
        return rewards + losses / 10 / weights
    gained = losses.exp() if estimate == "smoothed_mean" else losses / weights
    return smoothing * rewards + (1 - smoothing) * gained


def bandit_weights(
    rewards: Tensor, estimate: Estimate, rate_before: float, rate: float, alive: Tensor
) -> Tensor:
    """The weights by K domains' rewards: ``(1 − K ε_t) π + ε_t``.

    π is ``R̂ / Σ R̂`` for "smoothed_mean", else ``softmax(ε_{t−1} R̂)``.

    Args:
        rewards: (S,) R̂ ≥ 0, not all 0 for "smoothed_mean".
        estimate: how they were estimated.
        rate_before: ε of the update before.
        rate: ε_t ≤ 1/K.
        alive: (S,) bool, the K domains that are drawn; the others keep weight 0.

    >>> rewards, alive = torch.tensor([3.0, 1.0]), torch.tensor([True, True])
    >>> bandit_weights(rewards, "smoothed_mean", 0.5, 0.1, alive)
    tensor([0.7000, 0.3000])
    """
    if estimate == "smoothed_mean":
        shares = rewards * alive / rewards[alive].sum()
    else:
        shares = torch.softmax((rate_before * rewards).where(alive, -torch.inf), dim=0)
    return (1 - int(alive.sum()) * rate) * shares + rate * alive


class ODM(BaseMixer):
    """Draws more of what has the larger training loss.

    After each step, the domains of its batch get new rewards by their mean losses
    (``estimated_rewards``), then all get new weights (``bandit_weights``). An absent domain keeps
    its reward, as published: one that was never drawn has 0, one that is no longer drawn the last.

    Args:
        estimate: "smoothed_mean": what the authors' code runs and calls the paper's method; "exp3":
            the code's other one; "paper": Algorithm 1 as printed.
        smoothing: ξ in [0, 1), 0.9 in paper and code; "exp3" has none.
        update_every: optimiser steps between two updates, each by its own step's losses.
        warmup: optimiser steps that draw by ``prior`` and give no rewards; 2,000 published, of
            100,000.
        prior: weights by domain name to start from. None: uniform, as published. What is 0 stays 0.

    Attributes:
        rewards: (S,) float64 buffer, R̂.
        rate: ε of the last update.
    """

    rewards: Tensor

    def __init__(
        self,
        estimate: Estimate = "smoothed_mean",
        smoothing: float = 0.9,
        update_every: int = 1,
        warmup: int = 2000,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(update_every=update_every, warmup=warmup, prior=prior)
        check_choice("mixer.init_args.estimate", estimate, get_args(Estimate))
        check_range("mixer.init_args.smoothing", smoothing, at_least=0, below=1)
        self.estimate: Estimate = estimate
        self.smoothing = smoothing
        self.needs_own_draws = estimate != "smoothed_mean"  # the others divide by the weights

    def reset(self) -> None:
        """Starts without rewards."""
        self.register_buffer("rewards", torch.zeros_like(self.weights))
        self.rate = 1 / int((self.weights > 0).sum())

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) the next weights."""
        alive = self.weights > 0
        present = alive & (count_domains(signals.domain, len(self.domains)) > 0)
        losses = signals.by_domain(signals.sequence_loss, absent=torch.zeros(len(self.domains)))
        how = self.estimate, self.smoothing
        rewards = estimated_rewards(self.rewards, losses, self.weights, *how)
        self.rewards.copy_(torch.where(present, rewards, self.rewards))
        before, self.rate = self.rate, exploration_rate(int(alive.sum()), signals.step + 1)
        return bandit_weights(self.rewards, self.estimate, before, self.rate, alive)

    def diagnostics(self) -> dict[str, float]:
        """The exploration rate, and every domain's reward."""
        rewards = zip(self.domains, self.rewards.tolist(), strict=True)
        return {"rate": self.rate} | {f"reward/{name}": reward for name, reward in rewards}
