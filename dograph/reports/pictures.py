"""Which figures a run shows, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dograph.graph.clusters import effective_number
from dograph.graph.domain_graph import DomainGraph
from dograph.mixers.base import BaseMixer
from dograph.mixers.dograph_schedule import DoGraphSchedule
from dograph.reports.board import Board
from dograph.reports.figures import (
    GradientDirections,
    domain_graph_figure,
    early_late_figure,
    gradient_directions,
    gradient_directions_figure,
    schedule_figure,
    weight_trajectories_figure,
)
from dograph.reports.history import MixtureHistory
from dograph.reports.observation import Observed, observed_graph


class Pictures:
    """Draws observation windows and keeps the first and latest for the early-and-late figure.

    Args:
        clusters: of a window, where the mixer has no ``clusters`` of its own.
        seed: of K-means.
    """

    def __init__(self, clusters: int, seed: int) -> None:
        self.clusters, self.seed = clusters, seed
        self.early: GradientDirections | None = None
        self.late: GradientDirections | None = None

    def draw_window(
        self,
        board: Board,
        observed: Observed,
        mixer: BaseMixer,
        names: Sequence[str],
        step: int,
    ) -> dict[str, float]:
        """Draws the domain graph and the gradient directions of a window.

        Returns:
            Mutual information (nats) and effective clusters of the window.
        """
        clusters = int(getattr(mixer, "clusters", self.clusters))
        of_window = observed_graph(observed, clusters, self.seed)
        own = own_graph(mixer)
        # The mixer's own clusters, where it has clustered just these sequences.
        same = own is not None and len(own.labels) == len(of_window.labels)
        labels = own.labels.cpu() if own is not None and same else of_window.labels
        directions = gradient_directions(observed.sketches, observed.domain, labels, step)
        self.early, self.late = self.early or directions, directions
        board.picture("gradient_directions", gradient_directions_figure(directions, names), step)
        if own is not None:
            domain = own_domain(mixer)
            if domain is None:
                domain = last_domains(observed.domain, len(own.labels))
            self._draw_graph(board, own, domain, names, step, "as the mixer sees it")
        else:
            title = "weighted by the loss"
            self._draw_graph(board, of_window, observed.domain, names, step, title)
        return {
            "mutual_information": directions.mutual_information,
            "effective_clusters": effective_number(of_window.weights),
        }

    def draw_own_graph(
        self, board: Board, mixer: BaseMixer, names: Sequence[str], step: int
    ) -> None:
        """Draws the mixer's last graph, if it has one; few know their nodes' domains."""
        own = own_graph(mixer)
        if own is not None:
            self._draw_graph(board, own, own_domain(mixer), names, step, "as the mixer sees it")

    def draw_schedule(
        self, board: Board, mixer: BaseMixer, names: Sequence[str], step: int
    ) -> None:
        """Draws how a schedule came to its weights, if the mixer is one and has updated."""
        if isinstance(mixer, DoGraphSchedule) and mixer.record:
            drawn = [name for name, kept in zip(names, mixer.drawn.tolist(), strict=True) if kept]
            board.picture("schedule", schedule_figure(mixer.record, drawn), step, final=True)

    def draw_trajectories(
        self, board: Board, history: MixtureHistory, names: Sequence[str], step: int, live: bool
    ) -> None:
        """Draws the weights so far; ``live`` where they are the sampler's."""
        figure = weight_trajectories_figure(
            history.steps, history.weights, history.realised, history.effective, names, live
        )
        board.picture("weight_trajectories", figure, step, final=True)

    def draw_early_and_late(self, board: Board, names: Sequence[str], step: int) -> None:
        """Draws the first and the last window together, if there were two."""
        if self.early is None or self.late is None or self.late.step == self.early.step:
            return
        figure = early_late_figure(self.early, self.late, names)
        board.picture("gradient_directions_early_and_late", figure, step, final=True)

    def _draw_graph(
        self,
        board: Board,
        graph: DomainGraph,
        domain: Tensor | None,
        names: Sequence[str],
        step: int,
        title: str,
    ) -> None:
        figure = domain_graph_figure(graph, domain, names, f"Domain graph, step {step}, {title}")
        board.picture("domain_graph", figure, step)

    def state_dict(self) -> dict[str, Any]:
        """First and latest directions, as plain lists and numbers."""
        return {
            "early": None if self.early is None else self.early.state_dict(),
            "late": None if self.late is None else self.late.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues what ``state_dict`` gave."""
        early, late = state["early"], state["late"]
        self.early = None if early is None else GradientDirections.from_state_dict(early)
        self.late = None if late is None else GradientDirections.from_state_dict(late)


def own_graph(mixer: BaseMixer) -> DomainGraph | None:
    """The graph that a mixer has made of its last batches; None for one without."""
    graph = getattr(mixer, "graph", None)
    if not isinstance(graph, DomainGraph) or not torch.isfinite(graph.distances).all():
        return None
    return graph


def own_domain(mixer: BaseMixer) -> Tensor | None:
    """The domains of the sequences in a mixer's own graph, where it keeps them."""
    return mixer.graph_domain if isinstance(mixer, DoGraphSchedule) else None


def last_domains(domain: Tensor, count: int) -> Tensor | None:
    """The domains of the latest ``count`` sequences; None if the window holds fewer."""
    return domain[-count:] if len(domain) >= count else None
