"""Which figures a run shows, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dograph.files.records import from_dict
from dograph.graph.clusters import effective_number
from dograph.graph.domain_graph import DomainGraph
from dograph.mixers.snapshot import MixerSnapshot
from dograph.reports.figures import gradient_directions as directions
from dograph.reports.figures.domain_graph import domain_graph_figure
from dograph.reports.figures.schedule import schedule_figure
from dograph.reports.figures.trajectories import weight_trajectories_figure
from dograph.reports.finding import finding
from dograph.reports.history import MixtureHistory
from dograph.reports.observation import Observed, observed_graph
from dograph.reports.tensorboard import Board

Names = Sequence[str]
OWN_GRAPH = "as the mixer sees it"
"""Title of a graph that the mixer made itself."""
OF_DOMAINS = "the domains that are drawn"
"""Title of a schedule's graph."""


class Pictures:
    """Draws observation windows and keeps the first and latest for the early-and-late figure.

    Args:
        clusters: number of clusters of a window, where the mixer asks for none.
        seed: seed of K-means.
    """

    def __init__(self, clusters: int, seed: int) -> None:
        self.clusters, self.seed = clusters, seed
        self.early: directions.GradientDirections | None = None
        self.late: directions.GradientDirections | None = None

    def draw_window(
        self, board: Board, observed: Observed, mixer: MixerSnapshot, names: Names, step: int
    ) -> dict[str, float]:
        """Draws a window's domain graph and gradient directions.

        Returns:
            Mutual information (nats) and effective clusters of the window.
        """
        of_window = observed_graph(observed, mixer.clusters or self.clusters, self.seed)
        own = finite_graph(mixer)
        # The mixer's own clusters, where it has clustered just these sequences.
        clustered = own is not None and mixer.schedule is None
        labels = own.labels.cpu() if own is not None and clustered else of_window.labels
        labels = labels if len(labels) == len(of_window.labels) else of_window.labels
        self.late = directions.gradient_directions(observed.sketches, observed.domain, labels, step)
        self.early = self.early or self.late
        figure = directions.gradient_directions_figure(self.late, names)
        board.picture("gradient_directions", figure, step)
        if own is None:
            _draw_graph(board, of_window, observed.domain, names, step, "weighted by the loss")
        elif mixer.schedule is not None:
            draw_own_graph(board, mixer, names, step)
        else:
            domain = mixer.graph_domain
            if domain is None and len(observed.domain) >= len(own.labels):
                domain = observed.domain[-len(own.labels) :]
            _draw_graph(board, own, domain, names, step, OWN_GRAPH)
        return {
            "mutual_information": self.late.mutual_information,
            "effective_clusters": effective_number(of_window.weights),
        }

    def draw_early_and_late(self, board: Board, names: Names, step: int) -> None:
        """Draws the first and the last window together, if there were two."""
        if self.early is None or self.late is None or self.late.step == self.early.step:
            return
        figure = directions.early_late_figure(self.early, self.late, names)
        board.picture("gradient_directions_early_and_late", figure, step, final=True)

    def state_dict(self) -> dict[str, Any]:
        """First and latest directions, as plain lists and numbers."""
        kept = {"early": self.early, "late": self.late}
        return {key: each and vars(each) for key, each in kept.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues what ``state_dict`` gave."""
        self.early, self.late = (
            state[key] and from_dict(directions.GradientDirections, state[key], key)
            for key in ("early", "late")
        )


def draw_own_graph(board: Board, mixer: MixerSnapshot, names: Names, step: int) -> None:
    """Draws the mixer's last graph, if it has one; few know their nodes' domains."""
    own = finite_graph(mixer)
    if own is None:
        return
    nodes = None if mixer.schedule is None else mixer.schedule.sources
    title = OWN_GRAPH if nodes is None else OF_DOMAINS
    _draw_graph(board, own, mixer.graph_domain, names, step, title, nodes)


def draw_schedule(board: Board, mixer: MixerSnapshot, step: int) -> None:
    """Draws how a sampling schedule came to its weights, if the mixer is one and has updated."""
    if mixer.schedule is not None and mixer.graph is not None:
        board.picture("schedule", schedule_figure(mixer, step, finding(mixer)), step, final=True)


def draw_trajectories(
    board: Board, history: MixtureHistory, names: Names, step: int, live: bool
) -> None:
    """Draws the weights so far; ``live`` where they are the sampler's."""
    points = (history.steps, history.weights, history.realised, history.effective)
    figure = weight_trajectories_figure(*points, names, live)
    board.picture("weight_trajectories", figure, step, final=True)


def finite_graph(mixer: MixerSnapshot) -> DomainGraph | None:
    """The mixer's own graph; None for a mixer without one, and for one that has diverged."""
    graph = mixer.graph
    return graph if graph is not None and torch.isfinite(graph.distances).all() else None


def _draw_graph(
    board: Board,
    graph: DomainGraph,
    domain: Tensor | None,
    names: Names,
    step: int,
    title: str,
    nodes: Names | None = None,
) -> None:
    title = f"Domain graph, step {step}, {title}"
    board.picture("domain_graph", domain_graph_figure(graph, domain, names, title, nodes), step)
