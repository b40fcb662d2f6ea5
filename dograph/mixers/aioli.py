"""Aioli: what is drawn by probes of what each domain's text does to all losses (Chen et al. 2024).

The rounds of probes lie in the training itself: their steps train the model as all others do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dograph.errors import UserError, check_range, check_whole
from dograph.mixers.base import BaseMixer
from dograph.signals.batch_signals import BatchSignals, HeldOutLoss, Request


def probe_mixtures(domains: int, share: float) -> Tensor:
    """(k, k) float64: the j-th of k mixtures gives ``share`` to domain j, the rest evenly.

    >>> probe_mixtures(2, 0.75).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    rest = (1 - share) / (domains - 1)
    even = torch.full((domains, domains), rest, dtype=torch.float64)
    return even + (share - rest) * torch.eye(domains, dtype=torch.float64)


def mixing_graph(drops: Tensor, mixtures: Tensor) -> Tensor:
    """(S, k) A of the linear law ``drop_i = Σ_j A_ij p_j`` from the drops in the probes.

    Args:
        drops: (S, k) nats, how far each domain's loss fell in the j-th probe.
        mixtures: (k, k) p, what the j-th probe drew: of ``probe_mixtures``, unless limits changed
            it. Where these do not tell domains apart, A is the smallest that explains the drops.
    """
    return torch.linalg.lstsq(mixtures, drops.T, driver="gelsd").solution.T


def gains(graph: Tensor, counts: Tensor) -> Tensor:
    """(k,) ``Σ_i c_i Ā_ij``: Ā is A of the rows that count, shifted to be ≥ 0, of sum 1.

    A is shifted by its least value where that is below 0. Where nothing is left, all gain alike.

    Args:
        graph: (S, k) A.
        counts: (S,) c ≥ 0, not all 0.

    >>> gains(torch.tensor([[2.0, 1.0], [-1.0, 0.0]]), torch.tensor([1.0, 1.0]))
    tensor([0.5000, 0.5000])
    """
    counted = counts > 0
    rows = graph[counted]
    rows = rows - rows.min().clamp(max=0)
    rows = rows / rows.sum() if rows.sum() > 0 else torch.full_like(rows, 1 / rows.numel())
    return counts[counted].to(rows) @ rows


class Aioli(BaseMixer):
    """Draws what lowers the losses, by a mixing law measured in the run itself (arXiv 2411.05735).

    Every ``round_steps`` steps, a round of probes draws ``sweeps`` times by each domain's smoothed
    one-hot mixture, in an order by the run's seed, ``probe_steps`` steps each. How far each probe
    lowered all held-out losses gives the law's A (``mixing_graph``), A gives ``gains``, and the
    rest of the round draws by ``α_j ∝ α_0j exp(η gain_j)``.

    An update reaches the draws ``delay`` steps later. So mixtures are given out that much ahead,
    the first round begins after ``delay + 1`` steps, and the first ``delay`` steps after a round's
    probes are still drawn by the last round's mixture. A round in which a step is not finite
    changes nothing.

    Args:
        sweeps: probes of each domain a round, ≥ 1; 2 to 4 in the public code's scripts.
        probe_steps: optimiser steps of a probe, ≥ 1; 4 to 10 in the scripts.
        round_steps: optimiser steps from a round to the next; more than its probes and the delay
            take. 200 or 250 in the scripts.
        share: of a probe's own domain, in (1/k, 1] for k domains; 0.5 to 0.75 in the scripts.
        rate: η > 0; 0.1 to 1 in the scripts.
        ema: in [0, 1), how much of the gains comes from the rounds before, by an exponential mean.
            None: each round multiplies the last one's mixture, as the public code without a mean.
        start: optimiser steps before the first round, drawn by ``prior``.
        sequences: validation sequences of each domain that losses are measured on. None: all of
            ``data.validation_sequences``, as published.
        prior: α_0 by name; what is 0 stays 0. None: uniform.

    Attributes:
        mixture: (S,) float64 buffer, what is drawn between the probes.
        graph: (S, k) float64, A of the last whole round, over the k domains that are drawn.
    """

    needs_own_draws = True
    mixture: Tensor

    def __init__(
        self,
        sweeps: int = 2,
        probe_steps: int = 10,
        round_steps: int = 200,
        share: float = 0.75,
        rate: float = 1.0,
        ema: float | None = 0.1,
        start: int = 0,
        sequences: int | None = None,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(prior=prior)
        key = "mixer.init_args."
        for name, steps in (("sweeps", sweeps), ("probe_steps", probe_steps)):
            check_whole(key + name, steps, at_least=1)
        check_whole(f"{key}round_steps", round_steps, at_least=1)
        check_whole(f"{key}start", start, at_least=0)
        check_range(f"{key}share", share, above=0, at_most=1)
        check_range(f"{key}rate", rate, above=0)
        if ema is not None:
            check_range(f"{key}ema", ema, at_least=0, below=1)
        if sequences is not None:
            check_whole(f"{key}sequences", sequences, at_least=1)
        self.needs = frozenset({HeldOutLoss(sequences)})
        self.sweeps, self.probe_steps, self.round_steps = sweeps, probe_steps, round_steps
        self.share, self.rate, self.ema, self.start = share, rate, ema, start

    def initial_weights(self) -> Tensor:
        """(S,) the prior; by it the first steps are drawn."""
        prior = super().initial_weights() * self.trained
        self.drawn = prior.nonzero().flatten()
        count = len(self.drawn)
        self.probe_count = self.sweeps * count
        self.first = max(self.start, self.delay + 1)
        self.acts_from = self.first + self.probe_count * self.probe_steps
        self._check_round(count)
        self.prior_weights = prior / prior.sum()
        return self.prior_weights

    def _check_round(self, count: int) -> None:
        """Raises UserError for probes of ``count`` domains that cannot be, or fill their round."""
        if count < 2:
            raise UserError("Aioli compares domains: give it two or more to draw")
        if self.share <= 1 / count:
            raise UserError(
                f"mixer.init_args.share is {self.share}: raise it above 1/{count}, the share of "
                "each domain in an even mixture"
            )
        taken = self.probe_count * self.probe_steps
        if self.round_steps <= taken + self.delay:
            raise UserError(
                f"mixer.init_args.round_steps is {self.round_steps}, but probes of {count} domains "
                f"take {taken} steps, and their mixture is drawn {self.delay} steps later: raise "
                "it, or lower sweeps or probe_steps"
            )

    def reset(self) -> None:
        """Starts before the first round."""
        self.register_buffer("mixture", self.weights.clone())
        size = len(self.domains), len(self.drawn)
        self.graph = torch.zeros(size, dtype=torch.float64)
        self.gains: Tensor | None = None
        self.round, self.order = -1, torch.zeros(self.probe_count, dtype=torch.int64)
        # Of its own, from the run's seed: how much else is drawn differs with ranks and loaders.
        self.random = torch.Generator().manual_seed(torch.initial_seed())
        self.drops, self.before = torch.zeros(size, dtype=torch.float64), torch.zeros(size[0])
        self.probed = torch.zeros(size[1], size[1], dtype=torch.float64)  # what the probes drew
        self.measured = -1  # steps done when the losses before the current probe were measured
        self.updated = self.unbroken = (
            0  # every step from the second to the first was updated after
        )

    def needs_at(self, step: int, kind: type[Request]) -> bool:
        """Whether a signal is needed: losses at the ends of probes, and before a round's first."""
        return kind is HeldOutLoss and self._ended(step + 1) is not None

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) what to draw ``delay`` steps later: a probe's mixture, or that of the last round."""
        done, losses = signals.step + 1, signals.held_out_loss
        if done != self.updated + 1:
            self.unbroken = done
        self.updated = done
        if losses is not None and losses.isfinite().all():
            self._measure(done, losses)
        return self._planned(done + self.delay)

    def diagnostics(self) -> dict[str, float]:
        """What is drawn between the probes, and every domain's gain."""
        mixture = zip(self.domains, self.mixture.tolist(), strict=True)
        shown = {f"mixture/{name}": weight for name, weight in mixture}
        if self.gains is not None:
            names = (self.domains[index] for index in self.drawn.tolist())
            gained = zip(names, self.gains.tolist(), strict=True)
            shown |= {f"gain/{name}": gain for name, gain in gained}
        return shown

    def _ended(self, done: int) -> int | None:
        """How many of a round's probes have ended just after ``done`` steps; None at other steps.

        0 stands for the step that a round begins after.
        """
        place = (done - self.first) % self.round_steps
        if done < self.first or place % self.probe_steps:
            return None
        ended = place // self.probe_steps
        return ended if ended <= self.probe_count else None

    def _planned(self, step: int) -> Tensor:
        """(S,) what the optimiser step after ``step`` others is drawn by."""
        if step < self.first:
            return self.prior_weights
        number, place = divmod(step - self.first, self.round_steps)
        if place >= self.probe_count * self.probe_steps:
            return self.mixture
        if number != self.round:
            count = len(self.drawn)
            sweeps = [torch.randperm(count, generator=self.random) for _ in range(self.sweeps)]
            self.round, self.order = number, torch.cat(sweeps)
        probed = int(self.order[place // self.probe_steps])
        weights = torch.zeros_like(self.mixture)
        weights[self.drawn] = probe_mixtures(len(self.drawn), self.share)[probed]
        return weights

    def _measure(self, done: int, losses: Tensor) -> None:
        """Counts the last probe's drops of the (S,) losses; learns from a round's last."""
        ended, begun = self._ended(done), done - self.probe_steps
        if ended == 0:
            self.drops, self.probed = torch.zeros_like(self.drops), torch.zeros_like(self.probed)
        # Else the losses before the probe are not known, or not all of it was drawn as planned.
        elif ended and begun == self.measured and self.unbroken <= begun - self.delay:
            domain = self.order[ended - 1]
            self.drops[:, domain] += self.before - losses
            self.probed[domain] += self._drawn_by(begun, done)
            if ended == self.probe_count:
                self._learn(losses)
        else:
            return
        self.measured, self.before = done, losses

    def _drawn_by(self, begun: int, done: int) -> Tensor:
        """(k,) what the steps of a probe were drawn by: limits may have changed its mixture."""
        first, last = begun - self.delay, done - self.delay
        mixtures = [weights for step, weights in self.history if first <= step < last]
        return torch.stack(mixtures).mean(dim=0)[self.drawn]

    def _learn(self, losses: Tensor) -> None:
        """Finds the mixture of the round's drops."""
        self.graph = mixing_graph(self.drops / self.sweeps, self.probed / self.sweeps)
        counts = self.target.weights(self.domains, losses)
        latest = gains(self.graph, counts * (counts > 0).sum())
        base = self.mixture
        if self.ema is not None:
            before = latest if self.gains is None else self.gains
            latest, base = (1 - self.ema) * latest + self.ema * before, self.prior_weights
        self.gains = latest
        weights = torch.zeros_like(base)
        weights[self.drawn] = torch.softmax(base[self.drawn].log() + self.rate * latest, dim=0)
        self.mixture.copy_(weights)
