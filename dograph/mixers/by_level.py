"""A mixer that sees levels of domains' names in place of domains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dograph.errors import UserError, check_whole
from dograph.files.levels import at_level
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
from dograph.mixers.fixed import Stratified
from dograph.mixers.target import TargetValue
from dograph.signals.batch_signals import (
    BatchSignals,
    DomainGradients,
    HeldOutLoss,
    Probe,
    Request,
    TokenGradients,
)

OF_DOMAINS = (Probe, DomainGradients, HeldOutLoss)
"""Requests for signals that are measured by domain and cannot be joined."""


class ByLevel(BaseMixer):
    """Lets a mixer weigh levels: all of ``web/…`` are one domain to it.

    With the mixer's weights W over levels, the domain s of level l is drawn by
    ``α_s = W_l n_s / Σ_{l} n``, n being the training tokens of the domains that are trained on.

    Args:
        mixer: acts on levels; its arguments by domain (``prior``) name levels. None: every level
            equally often.
        level: how many parts of a name, from its first, make the level, ≥ 1. A domain of fewer
            parts is a level of its own.
    """

    def __init__(self, mixer: BaseMixer | None = None, level: int = 1) -> None:
        super().__init__()
        check_whole("mixer.init_args.level", level, at_least=1)
        self.mixer, self.level = Stratified() if mixer is None else mixer, level
        drawn = set() if self.mixer.is_proxy else {SAMPLING}
        self.acts_on = drawn | ({LOSS} if self.mixer.acts(LOSS) else set())
        self.whole_batch, self.needs = self.mixer.whole_batch, self.mixer.needs
        self.acts_from, self.needs_own_draws = self.mixer.acts_from, self.mixer.needs_own_draws

    def check(self, batch_size: int) -> None:
        """Raises UserError where the mixer's settings do not fit, or it measures domains."""
        self.mixer.check(batch_size)
        for request in self.mixer.needs:
            if isinstance(request, OF_DOMAINS):
                raise UserError(
                    f"mixer.init_args.mixer is {type(self.mixer).__name__}, which asks for "
                    f"{type(request).__name__}, measured by domain: take another mixer, or put it "
                    "in the place of ByLevel"
                )

    def initial_weights(self) -> Tensor:
        """(S,) the mixer's weights of levels, shared out by tokens."""
        names = [at_level(name, self.level) for name in self.domains]
        self.levels = tuple(dict.fromkeys(names))
        self.level_of = torch.tensor([self.levels.index(name) for name in names])
        tokens = torch.tensor(self.domain_tokens, dtype=torch.float64)
        trained = self._summed(tokens * self.trained)
        self.share = (tokens * self.trained / trained[self.level_of].clamp(min=1)).nan_to_num()
        self.mixer.setup(
            self.levels,
            [int(each) for each in self._summed(tokens).tolist()],
            self.batch_size,
            self.vocab_size,
            self._target(),
            [name for name, each in zip(self.levels, trained.tolist(), strict=True) if not each],
            self._text(),
            self.token_budget,
            self.delay,
        )
        self.needs, self.acts_from = self.mixer.needs, self.mixer.acts_from
        return self._spread()

    def validated(self, losses: Mapping[str, float]) -> None:
        """Tells the mixer every level's mean loss."""
        super().validated(losses)
        of_level: dict[str, list[float]] = {name: [] for name in self.levels}
        for name, loss in losses.items():
            of_level[at_level(name, self.level)].append(loss)
        means = {name: math.fsum(each) / len(each) for name, each in of_level.items() if each}
        self.mixer.validated(means)

    def needs_at(self, step: int, kind: type[Request]) -> bool:
        """When the mixer needs it."""
        return self.mixer.needs_at(step, kind)

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) the mixer's."""
        return self.mixer.checked_loss_weights(self._of_levels(signals))

    def step(self, signals: BatchSignals) -> bool:
        """Updates where the mixer does."""
        return self.mixer.step(self._of_levels(signals)) and super().step(signals)

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) the mixer's weights of levels, shared out by tokens."""
        return self._spread()

    def diagnostics(self) -> dict[str, float]:
        """The mixer's."""
        return self.mixer.diagnostics()

    def _spread(self) -> Tensor:
        return self.mixer.weights[self.level_of] * self.share

    def _summed(self, values: Tensor) -> Tensor:
        """(levels,) sums of (S,) values."""
        return torch.zeros(len(self.levels), dtype=values.dtype).index_add_(
            0, self.level_of, values
        )

    def _target(self) -> TargetValue:
        """The run's target by level; None where all levels count alike, as do all domains."""
        if self.target.is_worst:
            return self.target.value
        counted = self._summed(self.target.weights(self.domains))
        alike = counted[counted > 0]
        if self.target.is_even and torch.allclose(alike, alike[0]):
            return None
        return dict(zip(self.levels, counted.tolist(), strict=True))

    def _text(self) -> list[Tensor]:
        """(n_l, T + 1) tokens of each level, of all its domains; none where there are none."""
        if not self.text:
            return []
        text: list[list[Tensor]] = [[] for _ in self.levels]
        for level, of_domain in zip(self.level_of.tolist(), self.text, strict=True):
            text[level].append(of_domain)
        return [torch.cat(of_level) for of_level in text]

    def _of_levels(self, signals: BatchSignals) -> BatchSignals:
        """The same signals, with levels in the place of domains."""

        def level(domain: Tensor) -> Tensor:
            return self.level_of.to(domain.device)[domain]

        step_domain, read = signals.step_domain, signals.token_gradients
        if read is not None:
            read = TokenGradients(level(read.domain), read.tokens, read.gradients)
        return replace(
            signals,
            domain=level(signals.domain),
            step_domain=None if step_domain is None else level(step_domain),
            token_gradients=read,
            domain_loss=None,
            drawn_before=(
                None if signals.drawn_before is None else self._summed(signals.drawn_before)
            ),
        )
