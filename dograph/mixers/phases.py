"""A curriculum: stated mixtures, or a mixer's own, one after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dograph.errors import UserError, check_range
from dograph.files.levels import levels_of, split_levels
from dograph.mixers.base import LOSS, SAMPLING, BaseMixer
from dograph.mixers.fixed import Stratified
from dograph.mixers.simplex import weights_by_name
from dograph.mixers.snapshot import MixerSnapshot
from dograph.mixers.target import check_names
from dograph.signals.batch_signals import BatchSignals, Request

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """What is drawn from some step on.

    Attributes:
        at: optimiser steps before it, or below 1 a share of the run's.
        weights: by domain, normalised; domains left out have none. None: the mixer's own.
        ramp: optimiser steps, or below 1 a share of the run's, in which the mixture before turns
            into this one, evenly a step. 0: at once.
    """

    at: float
    weights: Mapping[str, float] | None = None
    ramp: float = 0.0

    def __post_init__(self) -> None:
        for key in ("at", "ramp"):
            value = getattr(self, key)
            check_range(f"mixer.init_args.phases: {key}", value, at_least=0)
            if value >= 1 and value != int(value):
                raise UserError(
                    f"mixer.init_args.phases: {key} is {value}: give whole steps, or a "
                    "share of the run below 1"
                )


class Phases(BaseMixer):
    """Draws stated mixtures, or a mixer's own, from given steps on: warm-up, curriculum, annealing.

    With the last phase begun at step s, of ramp r, the mixture after d steps is
    ``(1 − f) before + f own``, ``f = min((d − s)/r, 1)``. New weights reach the batches
    ``data.lookahead`` later, as every mixer's.

    Args:
        phases: in the order of their steps; the first is at 0. None: one, of the mixer's own.
        mixer: whose weights are drawn where a phase states none. It learns in all phases, and
            weighs losses if it does. None: every domain equally often.
    """

    def __init__(self, phases: list[Phase] | None = None, mixer: BaseMixer | None = None) -> None:
        super().__init__()
        phases = [Phase(0)] if phases is None else phases
        if not phases or phases[0].at != 0:
            raise UserError("mixer.init_args.phases must begin with one at 0")
        if phases[0].ramp:
            raise UserError("mixer.init_args.phases: the first has a ramp, but nothing before it")
        starts = [phase.at for phase in phases[1:]]
        if starts != sorted(set(starts)) or len({start < 1 for start in starts}) > 1 or 0 in starts:
            raise UserError(
                f"mixer.init_args.phases are at {[phase.at for phase in phases]}: give rising "
                "steps, or rising shares of the run below 1, and 0 for the first alone"
            )
        self.phases = list(phases)
        self.mixer = Stratified() if mixer is None else mixer
        if self.mixer.is_proxy:
            raise UserError(
                f"mixer.init_args.mixer is {type(self.mixer).__name__}, whose weights are for a "
                "later stage: put Phases into that stage, and its weights into a phase"
            )
        if self.mixer.needs_own_draws and any(phase.weights for phase in phases):
            raise UserError(
                f"mixer.init_args.mixer is {type(self.mixer).__name__}, which learns only from "
                "what it draws itself: state no weights in phases, or take another mixer"
            )
        self.acts_on = {SAMPLING, *([LOSS] if self.mixer.acts(LOSS) else [])}
        self.whole_batch, self.needs = self.mixer.whole_batch, self.mixer.needs

    def check(self, batch_size: int) -> None:
        """Raises UserError where the mixer's settings do not fit."""
        self.mixer.check(batch_size)

    def initial_weights(self) -> Tensor:
        """(S,) the first phase's."""
        self.mixer.setup(
            self.domains,
            self.domain_tokens,
            self.batch_size,
            self.vocab_size,
            self.target.value,
            self.unseen,
            self.text,
            self.token_budget,
            self.delay,
            self.limits,
        )
        self.needs = self.mixer.needs
        if not self.token_budget and any(0 < x < 1 for p in self.phases for x in (p.at, p.ramp)):
            raise UserError(
                "mixer.init_args.phases names shares of a run whose length is not known: set "
                "trainer.max_steps, or name steps"
            )
        return self._own_mixture(self.phases[0])

    def reset(self) -> None:
        """Starts before the first step."""
        self.seen = 0  # steps done when the mixer was last told of one
        self.averaged = 0  # steps whose mixtures are in the average weights

    def validated(self, losses: Mapping[str, float]) -> None:
        """Tells the mixer, too."""
        super().validated(losses)
        self.mixer.validated(losses)

    def needs_at(self, step: int, kind: type[Request]) -> bool:
        """When the mixer needs it."""
        return self.mixer.needs_at(step, kind)

    def probes(self, domain: str) -> bool:
        """Whether the mixer does."""
        return self.mixer.probes(domain)

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) the mixer's."""
        return self.mixer.checked_loss_weights(signals)

    def step(self, signals: BatchSignals) -> bool:
        """Lets the mixer learn; updates where it moves, a phase begins, or within a ramp."""
        moved, done = self.mixer.step(signals), signals.step + 1
        run = self._run_steps(signals)
        spans = self._spans(run)
        late = [start for start, _ in spans if run and start >= run]
        if late and not self.seen:
            logger.warning("the run ends after %d steps: phases at %s never begin", run, late)
        # Training skips the mixer at steps that are not finite: a phase may have begun at one.
        moves = moved or any(start <= done and self.seen < start + ramp for start, ramp in spans)
        self.seen = done
        before = self.average_weights.clone()
        updated = moves and super().step(signals)
        # A phase counts by its steps: of its updates there may be one.
        self.averaged += 1
        self.average_weights.copy_(before + (self.weights - before) / self.averaged)
        return updated

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) the mixture after this step."""
        return self._mixture(signals.step + 1, self._run_steps(signals))

    def snapshot(self) -> MixerSnapshot:
        """The mixer's."""
        return self.mixer.snapshot()

    def diagnostics(self) -> dict[str, float]:
        """The mixer's."""
        return self.mixer.diagnostics()

    def _run_steps(self, signals: BatchSignals) -> int:
        """Optimiser steps of the whole run; 0 where its length is not known."""
        return self.token_budget // ((signals.sequence_tokens + 1) * signals.batch_size)

    def _spans(self, steps: int) -> list[tuple[int, int]]:
        """(first step, steps of the ramp) of every phase."""
        return [(_steps(phase.at, steps), _steps(phase.ramp, steps)) for phase in self.phases]

    def _mixture(self, done: int, steps: int) -> Tensor:
        """(S,) what is drawn after ``done`` steps of a run of ``steps``."""
        mixture: Tensor | None = None
        for phase, (start, ramp) in zip(self.phases, self._spans(steps), strict=True):
            if done < start:
                break
            own = self._own_mixture(phase)
            part = min((done - start) / ramp, 1.0) if ramp else 1.0
            mixture = own if mixture is None else (1 - part) * mixture + part * own
        assert mixture is not None
        return mixture

    def _own_mixture(self, phase: Phase) -> Tensor:
        if phase.weights is None:
            return self.mixer.sampling_weights.clone()
        key, tokens = "mixer.init_args.phases: weights", self.domain_tokens
        check_names(key, list(phase.weights), [*self.domains, *levels_of(self.domains)])
        sizes = [n * (d not in self.unseen) for d, n in zip(self.domains, tokens, strict=True)]
        given = split_levels(phase.weights, self.domains, sizes, key)
        named = {**dict.fromkeys(self.domains, 0.0), **given}
        return weights_by_name(named, self.domains, key, self.unseen)


def _steps(value: float, run: int) -> int:
    """Steps, of a number of them or a share of a run's."""
    return max(round(value * run), value > 0) if value < 1 else int(value)
