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
        numbers: the m clusters' numbers, which stay with a cluster over time.
        clusters: (m,) weights of the clusters, ``w = P α``.
        contingency: (m, S) share of each cluster in each sampled source, ``P[c|s]``; only the last
            update keeps it.
        terms: value of each term of the objective, by name.
        scalars: κ, λ, μ by name.
    """

    step: int
    numbers: list[int]
    clusters: list[float]
    contingency: list[list[float]]
    terms: dict[str, float]
    scalars: dict[str, float]


@dataclass(frozen=True)
class ScheduleSnapshot:
    """All updates of a sampling schedule.

    Attributes:
        sources: names of the S sources that are sampled, in the contingency's order.
        updates: in the order of their steps; at least one.
    """

    sources: tuple[str, ...]
    updates: list[ScheduleUpdate]


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
