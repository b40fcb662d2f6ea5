"""What a mixer shows to figures, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dograph.graph.domain_graph import DomainGraph


@dataclass(frozen=True)
class ScheduleUpdate:
    """How one update of a sampling schedule came to its weights.

    Attributes:
        step: optimiser steps done.
        weights: (m,) α of the sources.
        influence: (m,) b, each source's influence on the target, beyond what the prior has of it
            already; in units of the prior's own gradient.
        error: (m,) standard errors of the influences.
        terms: value of each term of the objective, by name.
    """

    step: int
    weights: list[float]
    influence: list[float]
    error: list[float]
    terms: dict[str, float]


@dataclass(frozen=True)
class ScheduleSnapshot:
    """All updates of a sampling schedule.

    Attributes:
        sources: names of the m domains that are drawn.
        target: label of the run's target.
        updates: in the order of their steps; at least one.
        prior: (m,) α_0, on the simplex. None: even.
        measure: step by which all gradients are read; until then the prior is drawn. 0: the text of
            the domains decides alone. None: that of the last update.
    """

    sources: tuple[str, ...]
    target: str
    updates: list[ScheduleUpdate]
    prior: tuple[float, ...] | None = None
    measure: int | None = None

    @property
    def prior_weights(self) -> tuple[float, ...]:
        """(m,) the prior, written out."""
        return self.prior or (1 / len(self.sources),) * len(self.sources)

    @property
    def measured(self) -> int:
        """Step by which the gradients of the last update were read."""
        done = self.updates[-1].step
        return done if self.measure is None else min(self.measure, done)


@dataclass(frozen=True)
class MixerSnapshot:
    """What figures draw of a mixer; every part is optional.

    Attributes:
        graph: the mixer's latest domain graph.
        graph_domain: (n,) human domain of each sequence in the graph. None: the latest n sequences.
        clusters: number of clusters that the mixer asks for.
        schedule: how a sampling schedule came to its weights.
    """

    graph: DomainGraph | None = None
    graph_domain: Tensor | None = None
    clusters: int | None = None
    schedule: ScheduleSnapshot | None = None
