"""Fixed mixtures and the losses that training on each gave, as laws are fitted to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dograph.errors import UserError, nearest

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
SAME = 6
"""Decimals up to which two rows have one mixture."""
ALONE = 1 - 1e-6
"""A weight above it: nothing else is drawn."""
MEAN = "mean"
"""The target in which all losses count alike."""


@dataclass(frozen=True)
class Points:
    """Where a law is evaluated: (n, S) mixtures, each after (n,) training steps."""

    mixtures: Floats
    steps: Floats

    @classmethod
    def at(cls, mixtures: Floats, step: float) -> Points:
        """Mixtures, all after one number of steps."""
        return cls(mixtures, np.full(len(mixtures), step))

    def take(self, rows: NDArray[Any]) -> Points:
        """Some of the points, by a mask or by indices."""
        return Points(self.mixtures[rows], self.steps[rows])


@dataclass(frozen=True)
class SequenceLosses:
    """What S models, each of one domain alone, say of held-out sequences.

    Attributes:
        nats: by loss, (S, n) losses of n sequences, summed over each one's tokens.
        tokens: that a sequence predicts.
    """

    nats: Mapping[str, Floats]
    tokens: int


@dataclass(frozen=True)
class MixtureTable:
    """n rows: a mixture of S domains, and T losses after training on it.

    Attributes:
        domains: names of the S domains that at least one mixture draws.
        mixtures: (n, S) weights, each row on the simplex.
        names: names of the T losses; some may be those of domains.
        losses: (n, T), all finite; the lower, the better.
        steps: (n,) training steps of each row; the last ones of a run count for a proposal.
        sizes: tokens by domain, as far as they are known.
        target: the runs' own target, as a recipe writes it; None: the mean.
        sources: digest of each file or run by its path.
        cost: tokens, FLOPs and seconds of all runs; empty for a file.
        notes: what was left out, a sentence each.
        sequences: losses of single sequences, for a law that reads them.
    """

    domains: tuple[str, ...]
    mixtures: Floats
    names: tuple[str, ...]
    losses: Floats
    steps: Floats
    sizes: Mapping[str, float] = field(default_factory=dict)
    target: Any = None
    sources: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sequences: SequenceLosses | None = None

    @property
    def points(self) -> Points:
        """The rows' mixtures and steps."""
        return Points(self.mixtures, self.steps)

    @property
    def last_step(self) -> float:
        """The most steps of any row."""
        return float(self.steps.max())

    @property
    def at_end(self) -> NDArray[np.bool_]:
        """(n,) which rows are ends of training."""
        return np.asarray(self.steps == self.steps.max())

    def ends(self) -> MixtureTable:
        """The rows that are ends of training, with a note on how many are not."""
        kept, last = self.at_end, self.last_step
        if kept.all():
            return self
        note = (
            f"{int((~kept).sum())} of {len(kept)} rows are of fewer than {last:,.0f} steps: only "
            "--law bimix reads them"
        )
        return replace(
            self,
            mixtures=self.mixtures[kept],
            losses=self.losses[kept],
            steps=self.steps[kept],
            notes=(*self.notes, note),
        )

    @cached_property
    def groups(self) -> Places:
        """(n,) number of each row's mixture; repeats have the same."""
        rows = np.round(self.mixtures, SAME)
        return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1]).reshape(-1)

    @property
    def count(self) -> int:
        """Distinct mixtures."""
        return int(self.groups.max()) + 1

    def own(self, loss: int) -> int | None:
        """Place of the domain whose loss it is; None for the loss of something else."""
        name = self.names[loss]
        return self.domains.index(name) if name in self.domains else None

    def target_weights(self, target: Any) -> Floats:
        """(T,) how much each loss counts, sum 1.

        Args:
            target: "mean", a loss's name, or weights by name.

        Raises:
            UserError: for a name that the table does not have.
        """
        if target == MEAN and MEAN in self.names:
            raise UserError(f"target is {MEAN}, which is also a loss's name: write {MEAN}=1 for it")
        named = dict.fromkeys(self.names, 1.0) if target in (None, MEAN) else target
        if isinstance(named, str):
            named = {named: 1.0}
        for name in named:
            if name not in self.names:
                hint = nearest(name, self.names) or f"; there are {', '.join(self.names)}"
                raise UserError(f"target is {name!r}, which no loss is of{hint}")
        weights = np.array([float(named.get(name, 0.0)) for name in self.names])
        if not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
            raise UserError(f"target is {target}: give numbers ≥ 0, at least one above 0")
        return weights / weights.sum()

    def noise(self, losses: Floats) -> float | None:
        """Standard deviation between runs of one mixture, pooled; None without repeats.

        Args:
            losses: (n,) a loss of each row.
        """
        ends = self.at_end
        groups, values = self.groups[ends], losses[ends]
        counts = np.bincount(groups)
        if (freedom := int((counts[counts > 0] - 1).sum())) == 0:
            return None
        means = np.bincount(groups, values) / np.maximum(counts, 1)
        return float(np.sqrt(((values - means[groups]) ** 2).sum() / freedom))


def make_table(
    domains: Sequence[str], mixtures: Floats, names: Sequence[str], losses: Floats, **more: Any
) -> MixtureTable:
    """Leave out domains that nobody draws and rows without a finite loss, and say so."""
    drawn, notes = mixtures.sum(axis=0) > 0, list(more.pop("notes", ()))
    if not drawn.all():
        missing = ", ".join(
            name for name, is_drawn in zip(domains, drawn, strict=True) if not is_drawn
        )
        notes.append(f"never drawn: {missing}")
    finite = np.asarray(np.isfinite(losses).all(axis=1))
    if not finite.all():
        notes.append(f"{int((~finite).sum())} of {len(finite)} rows lack a finite loss: left out")
    steps = np.asarray(more.pop("steps", np.ones(len(mixtures))), dtype=np.float64)
    mixtures = mixtures[finite][:, drawn]
    return MixtureTable(
        domains=tuple(name for name, is_drawn in zip(domains, drawn, strict=True) if is_drawn),
        mixtures=mixtures / mixtures.sum(axis=1, keepdims=True),
        names=tuple(names),
        losses=losses[finite],
        steps=steps[finite],
        notes=tuple(notes),
        **more,
    )
