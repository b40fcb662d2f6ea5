"""Gradient directions in the plane of most variance: the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from dograph.reports.figures import appearance
from dograph.reports.figures.appearance import CLUSTER_COLOURS, DOMAIN_COLOURS, TITLE, style_of
from dograph.reports.figures.layout import Floats, boxes_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class GradientDirections:
    """n gradient directions as points of a plane, with (n,) human domains and cluster labels.

    Attributes:
        step: optimiser steps done when they were sketched.
        points: (n, 2) principal components of the unit vectors; a distance of 2 is opposite.
        explained: (2,) share of the variance along each axis.
        mutual_information: of domains and clusters, in nats.
    """

    step: int
    points: list[list[float]]
    explained: list[float]
    domain: list[int]
    labels: list[int]
    mutual_information: float


def gradient_directions(
    sketches: Tensor, domain: Tensor, labels: Tensor, step: int
) -> GradientDirections:
    """Projects (n, k) sketches, scaled to length 1, on their first two principal components.

    A row of zeros stays zero.
    """
    from sklearn.decomposition import PCA

    from dograph.graph.clusters import mutual_information

    rows = sketches.detach().cpu().double()
    unit = (rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)).numpy()
    points, explained = np.zeros((len(unit), 2)), np.zeros(2)
    taken = min(2, *unit.shape)
    if np.ptp(unit, axis=0).max() > 1e-12:  # identical rows have no principal component
        pca = PCA(n_components=taken, svd_solver="full")
        points[:, :taken] = pca.fit_transform(unit)
        explained[:taken] = pca.explained_variance_ratio_
    domain, labels = domain.detach().cpu().long(), labels.detach().cpu().long()
    return GradientDirections(
        step=step,
        points=points.tolist(),
        explained=explained.tolist(),
        domain=domain.tolist(),
        labels=labels.tolist(),
        mutual_information=float(mutual_information(labels, domain)),
    )


def gradient_directions_figure(directions: GradientDirections, names: Sequence[str]) -> Figure:
    """PCA of gradient directions twice: coloured by human domain and by cluster."""
    return directions_figure([("", directions)], names)


def early_late_figure(
    early: GradientDirections, late: GradientDirections, names: Sequence[str]
) -> Figure:
    """The first observed directions above the last ones, all four panels on one scale."""
    return directions_figure([("early", early), ("late", late)], names)


def directions_figure(
    rows: Sequence[tuple[str, GradientDirections]], names: Sequence[str]
) -> Figure:
    """A row of two panels for each called set of directions, on one scale."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = appearance.white_figure(9.0, 0.7 + 4.25 * len(rows), layout=engine)
    grid = figure.subplots(len(rows), 2, sharex=True, sharey=True, squeeze=False)
    low, high = _square(np.array([point for _, directions in rows for point in directions.points]))
    grid[0, 0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for (called, directions), (left, right) in zip(rows, grid, strict=True):
        when = f"{called}, step {directions.step}" if called else f"step {directions.step}"
        _scatter(left, directions, directions.domain, DOMAIN_COLOURS)
        left.set_title(f"{when}: human domains", **TITLE)
        _scatter(right, directions, directions.labels, CLUSTER_COLOURS)
        _number_clusters(right, directions)
        information = f"mutual information {directions.mutual_information:.2f} nats"
        right.set_title(f"{when}: clusters", **TITLE)
        right.set_title(information, fontsize=8.5, loc="right", color=appearance.QUIET_COLOUR)
        for axes in (left, right):
            _label_components(axes, directions)
    present = sorted({index for _, directions in rows for index in directions.domain})
    figure.legend(
        handles=[appearance.legend_marker(index, names[index]) for index in present],
        loc="outside lower center",
        ncols=min(len(present), 7 if len(present) <= 7 else 5),
        frameon=False,
        fontsize=8,
        labelcolor=appearance.TEXT_COLOUR,
        handletextpad=0.2,
        columnspacing=1.4,
    )
    return figure


def _square(points: Floats) -> tuple[Floats, Floats]:
    """Lower left and upper right corner of a square that holds (n, 2) points with a margin."""
    if len(points) == 0:
        return np.full(2, -1.0), np.full(2, 1.0)
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) / 2, 0.1) * 1.1
    middle = (low + high) / 2
    return middle - half, middle + half


def _label_components(axes: Axes, directions: GradientDirections) -> None:
    appearance.quiet_axes(axes)
    axes.set_aspect("equal")
    axes.tick_params(labelbottom=True, labelleft=True)
    first, second = map(appearance.percent, directions.explained)
    axes.set_xlabel(f"1st component: {first} of variance", **appearance.QUIET)
    axes.set_ylabel(f"2nd component: {second} of variance", **appearance.QUIET)


def _number_clusters(axes: Axes, directions: GradientDirections) -> None:
    """Writes each cluster's number at its middle, or beside it where several coincide."""
    points, labels = np.array(directions.points), np.array(directions.labels)
    clusters = sorted(set(directions.labels))
    if not clusters:
        return
    middles = np.array([np.median(points[labels == cluster], axis=0) for cluster in clusters])
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    centre, half = (low + high) / 2, (high - low) / 2
    badge, ink = np.full_like(middles, 0.048), appearance.TEXT_COLOUR
    apart = boxes_apart((middles - centre) / half, badge, np.ones(2))
    for cluster, middle, place in zip(clusters, middles, apart * half + centre, strict=True):
        colour = style_of(cluster, CLUSTER_COLOURS).colour
        if np.abs(place - middle).max() > 0.03 * half.max():
            axes.plot(*np.stack([middle, place]).T, color=ink, linewidth=0.7, zorder=3)
        box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colour}
        number = axes.text(place[0], place[1], str(cluster + 1), ha="center", va="center")
        number.set(fontsize=7.5, weight="bold", color=ink, zorder=4)
        number.set_bbox({**box, "linewidth": 1.5, "alpha": 0.94})


def _scatter(
    axes: Axes, directions: GradientDirections, groups: Sequence[int], colours: Sequence[str]
) -> None:
    size = float(np.clip(6000 / max(len(groups), 1), 9, 34))
    points, members = np.array(directions.points), np.array(groups)
    # Large groups first, so that small ones are not covered.
    for group in sorted(set(groups), key=lambda group: (-groups.count(group), group)):
        style = style_of(group, colours)
        x, y = points[members == group].T
        dots = axes.scatter(x, y, s=size, marker=style.marker, alpha=0.8)
        dots.set(facecolors=style.colour, linewidths=0.4, edgecolors="white")
