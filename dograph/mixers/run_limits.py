"""The limits of one run: what may still be drawn, given what has been."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dograph.errors import UserError
from dograph.graph.bounds import Bound, Bounds, conflict
from dograph.graph.polytope import BINDS, Distance, Polytope
from dograph.graph.problem import Array


@dataclass(frozen=True)
class EpochCap:
    """How much of a domain, or group, a run may draw.

    Attributes:
        name: of the domain or group.
        members: (S,) 1 for its domains.
        epochs: passes through it.
        sequences: that these are.
    """

    name: str
    members: Array
    epochs: float
    sequences: float

    @property
    def label(self) -> str:
        """What messages and charts call it."""
        return f"epochs.{self.name} {self.epochs:g}"


@dataclass(frozen=True)
class RunLimits:
    """The limits of one run: what may still be drawn, given what has been.

    Attributes:
        shares: limits that hold at every step.
        caps: on sequences of the whole run.
        drawn: (S,) bool, False for domains that are never drawn.
        run_sequences: that the run draws, all in all; 0 where its length is not known.
        projection: by what distance.
    """

    shares: tuple[Bound, ...]
    caps: tuple[EpochCap, ...]
    drawn: np.ndarray
    run_sequences: int
    projection: Distance = "kl"

    def check(self) -> None:
        """Raises UserError where no mixture keeps all limits from the start on."""
        caps = [
            Bound(cap.label, cap.members, high=cap.sequences / self.run_sequences)
            for cap in self.caps
        ]
        refuse_conflict(conflict([*self.shares, *caps], self.drawn), self.caps, self.run_sequences)

    def check_resumed(self, weights: Tensor, drawn: Array) -> None:
        """Raises UserError for limits that a run's earlier part did not keep to.

        A mixer that seldom updates would draw beyond them for long, without a word.

        Args:
            weights: (S,) by which the run will draw.
            drawn: (S,) sequences that it has drawn.
        """
        remedy = "resume with the limits that the run began with, or start a new run"
        for cap in self.caps:
            chance = 5 * math.sqrt(cap.sequences)  # by which multinomial draws may miss it
            if (done := cap.members @ drawn) > cap.sequences + cap.members.sum() + chance:
                raise UserError(
                    f"limits.{cap.label} lets the run draw {cap.sequences:,.0f} sequences, and the "
                    f"checkpoint's run has drawn {done:,.0f} already: {remedy}"
                )
        for bound in self.shares:
            share = float(bound.row @ weights.numpy())
            if not bound.low - BINDS <= share <= bound.high + BINDS:
                raise UserError(
                    f"the checkpoint's mixture does not keep limits.{bound.label}: {remedy}"
                )

    def polytope(self, done: Tensor | None = None) -> Polytope:
        """The mixtures that may be drawn from now to the run's end, all of it by one of them.

        A cap leaves what is left of it over the sequences that the run still draws, so that none
        is used up before the end.

        Args:
            done: (S,) sequences drawn until then. None: none yet.
        """
        sequences = np.zeros(len(self.drawn)) if done is None else done.double().numpy()
        return Polytope.of(self._bounds(sequences), self.drawn)

    def nearest(self, weights: Tensor, within: Polytope) -> Tensor:
        """(S,) the allowed mixture nearest to ``weights`` (S,), which are returned where allowed.

        ArithmeticError where no mixture is.
        """
        wanted = weights.numpy()
        nearest = within.project(wanted, self.projection)
        return weights if nearest is wanted else torch.from_numpy(nearest)

    def prices(self, wanted: Tensor, weights: Tensor, within: Polytope) -> dict[str, float]:
        """By bound, how strongly it holds ``wanted`` (S,) back, whose nearest is ``weights`` (S,).

        It is the multiplier of the projection: for "kl" the logarithm of the factor by which the
        domain's weight would grow, against those that no limit holds.
        """
        now, before = weights.numpy(), wanted.numpy()
        gradient = now - before
        if self.projection == "kl":
            gradient = np.log(np.maximum(now, 1e-12)) - np.log(np.maximum(before, 1e-12))
        return within.prices(gradient, now)

    @cached_property
    def _all(self) -> Bounds:
        """Limits on shares, then caps, the latter without a number."""
        caps = [Bound(cap.label, cap.members) for cap in self.caps]
        return Bounds.of([*self.shares, *caps], len(self.drawn))

    @cached_property
    def _cap_sequences(self) -> Array:
        """(c,) of each cap."""
        return np.array([cap.sequences for cap in self.caps])

    def _bounds(self, done: Array) -> Bounds:
        """The bounds after (S,) sequences ``done``; caps that are beyond reach are left out."""
        every, shares = self._all, len(self.shares)
        left = self.run_sequences - done.sum()
        unused = self._cap_sequences - every.rows[shares:] @ done
        high = every.high.copy()
        if left > 0:
            high[shares:] = np.maximum(unused, 0.0) / left
        kept = (high < 1) | (np.arange(len(high)) < shares)
        return every.only(kept, high)


def refuse_conflict(bounds: Sequence[Bound], caps: Sequence[EpochCap], run: int) -> None:
    """Raises UserError for ``bounds`` that conflict, if there are any.

    Args:
        bounds: a smallest set that no mixture keeps.
        caps: on sequences of the whole run, which may be among the bounds.
        run: sequences that it draws.
    """
    if not bounds:
        return
    capped = {cap.label: f" ({cap.sequences:,.0f} of the run's {run:,} sequences)" for cap in caps}
    names = [f"limits.{bound.label}{capped.get(bound.label, '')}" for bound in bounds]
    together = f"{', '.join(names[:-1])} and {names[-1]} cannot hold together"
    what = f"{names[0]} cannot hold" if len(names) == 1 else together
    has_cap = any(bound.label in capped for bound in bounds)
    remedy = ", or draw less (trainer.max_steps)" if has_cap else ""
    raise UserError(f"{what}: change one of them or leave it out{remedy}")
