"""The domain graph: clusters of gradients, and how far apart their distributions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dograph.report.figures.appearance import (
    CLUSTER_COLOURS,
    QUIET_COLOUR,
    TEXT_COLOUR,
    percent,
    plain,
    style,
)
from dograph.report.figures.placement import (
    HALF_HEIGHT,
    HALF_WIDTH,
    label_places,
    node_radii,
    pushed_apart,
    scaled_to_view,
    squared_mmd_plane,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

    from dograph.graph.domain_graph import DomainGraph

Floats = npt.NDArray[np.float64]
NEIGHBOURS_DRAWN = 3


def domain_graph_figure(
    graph: DomainGraph, domain: Tensor | None, names: Sequence[str], title: str = "Domain graph"
) -> Figure:
    """Draws the clusters near each other where their gradients are alike.

    Nodes lie by classical multidimensional scaling of MMD (pushed apart only where they would
    overlap); their area is the weight, their slices the human domains inside. Edges join each
    node to its three nearest, dark and thick where MMD is small.

    Args:
        graph: m nodes; ``distances`` (m, m) are squared MMD.
        domain: (n,) human domain of each sequence of ``graph.labels``. None: plain nodes.
        names: the S human domains.
        title: over the figure.
    """
    from matplotlib.figure import Figure

    squared = np.clip(graph.distances.detach().cpu().double().numpy(), 0, None)
    weights = graph.weights.detach().cpu().double().numpy()
    counts = graph.counts.detach().cpu().long().numpy()
    plane, kept = squared_mmd_plane(squared)
    radii = node_radii(weights)
    places = pushed_apart(scaled_to_view(plane, radii), radii)

    figure = Figure(figsize=(8.6, 5.4), dpi=110, facecolor="white")
    axes = figure.add_axes((0.01, 0.03, 0.73, 0.86))
    axes.set_xlim(-HALF_WIDTH, HALF_WIDTH)
    axes.set_ylim(-HALF_HEIGHT, HALF_HEIGHT)
    axes.set_aspect("equal")
    axes.axis("off")
    _draw_edges(figure, axes, places, np.sqrt(squared))
    slices = None if domain is None else _domain_counts(graph, domain, len(names))
    _draw_nodes(axes, places, radii, slices)
    _draw_labels(axes, places, radii, weights, counts)
    if slices is not None:
        _draw_domain_legend(figure, names, slices)
    figure.text(0.02, 0.955, title, fontsize=12, color=TEXT_COLOUR, weight="bold", va="center")
    explanation = "area: weight · slices: human domains · n: sequences"
    if len(weights) > 2:
        explanation += f" · plane keeps {percent(kept)} of the squared MMD"
    figure.text(0.02, 0.912, explanation, fontsize=8, color=QUIET_COLOUR, va="center")
    return figure


def _domain_counts(graph: DomainGraph, domain: Tensor, domains: int) -> npt.NDArray[np.int64]:
    """(m, S) sequences of each human domain in each cluster."""
    table = np.zeros((graph.weights.numel(), domains), dtype=np.int64)
    pair = graph.labels.detach().cpu().numpy(), domain.detach().cpu().numpy()
    np.add.at(table, pair, 1)
    return table


def nearest_pairs(distances: Floats, neighbours: int = NEIGHBOURS_DRAWN) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, where one is among the nearest of the other; each pair once."""
    apart = distances.copy()
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, : min(neighbours, len(apart) - 1)]
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row}
    return sorted(pairs)


def _draw_edges(figure: Figure, axes: Axes, places: Floats, distances: Floats) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    pairs = nearest_pairs(distances)
    if not pairs:
        return
    lengths = np.array([distances[pair] for pair in pairs])
    least, most = float(lengths.min()), float(lengths.max())
    if most - least <= 1e-9 * max(most, 1e-30):  # all alike: one shade, in the middle of the bar
        least, most = 0.0, max(2 * most, 1e-12)
    shades = LinearSegmentedColormap.from_list("affinity", ["#303030", "#8C8C8C", "#DADADA"])
    norm = Normalize(least, most)
    order = np.argsort(-lengths)  # the nearest on top
    affinity = 1 - np.asarray(norm(lengths))
    axes.add_collection(
        LineCollection(
            [[tuple(places[i]), tuple(places[j])] for i, j in (pairs[k] for k in order)],
            colors=shades(norm(lengths[order])),
            linewidths=0.8 + 3.2 * affinity[order],
            capstyle="round",
            zorder=1,
        )
    )
    _draw_colour_bar(figure, norm, shades)


def _draw_colour_bar(figure: Figure, norm: Normalize, shades: Colormap) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(
        ScalarMappable(norm, shades),
        cax=figure.add_axes((0.765, 0.13, 0.2, 0.022)),
        orientation="horizontal",
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.locator = MaxNLocator(3)
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8, colors=QUIET_COLOUR, length=2)
    bar.ax.xaxis.get_offset_text().set(size=8, color=QUIET_COLOUR)
    bar.ax.set_title("MMD of the joined nodes", fontsize=8, color=TEXT_COLOUR, loc="left", pad=4)


def _draw_nodes(
    axes: Axes, places: Floats, radii: Floats, slices: npt.NDArray[np.int64] | None
) -> None:
    from matplotlib.patches import Circle, Wedge

    for node, (place, radius) in enumerate(zip(places, radii, strict=True)):
        centre = (float(place[0]), float(place[1]))
        axes.add_patch(Circle(centre, radius * 1.0 + 0.012, color="white", zorder=2))
        total = 0 if slices is None else int(slices[node].sum())
        if slices is None or total == 0:
            colour = style(node, CLUSTER_COLOURS).colour
            axes.add_patch(Circle(centre, radius, facecolor=colour, edgecolor="white", zorder=3))
            continue
        start = 90.0
        for index in np.flatnonzero(slices[node]):
            angle = 360 * slices[node, index] / total
            look = style(int(index))
            axes.add_patch(
                Wedge(
                    centre,
                    radius,
                    start - angle,
                    start,
                    facecolor=look.colour,
                    hatch=look.hatch,
                    edgecolor="white",
                    linewidth=0.5,
                    zorder=3,
                )
            )
            start -= angle


def _draw_labels(
    axes: Axes,
    places: Floats,
    radii: Floats,
    weights: Floats,
    counts: npt.NDArray[np.int64],
) -> None:
    from matplotlib.patheffects import withStroke

    texts = [
        f"{node + 1}\n{percent(weight)} · n {count}"
        for node, (weight, count) in enumerate(zip(weights, counts, strict=True))
    ]
    for text, (x, y) in zip(texts, label_places(places, radii, texts), strict=True):
        axes.text(
            x,
            y,
            text,
            fontsize=8,
            linespacing=1.05,
            ha="center",
            va="center",
            color=TEXT_COLOUR,
            zorder=5,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )


def _draw_domain_legend(
    figure: Figure, names: Sequence[str], slices: npt.NDArray[np.int64]
) -> None:
    from matplotlib.patches import Patch

    shares = slices.sum(axis=0) / max(slices.sum(), 1)
    handles = [
        Patch(
            facecolor=style(index).colour,
            hatch=style(index).hatch,
            edgecolor="white",
            label=f"{plain(name, 20)}  {percent(shares[index])}",
        )
        for index, name in enumerate(names)
    ]
    crowded = len(names) > 16
    figure.legend(
        handles=handles,
        title="human domain, share of sequences",
        title_fontsize=8,
        fontsize=6 if crowded else 8,
        labelspacing=0.25 if crowded else 0.5,
        loc="upper left",
        bbox_to_anchor=(0.75, 0.9),
        frameon=False,
        alignment="left",
        handlelength=1.2,
        labelcolor=TEXT_COLOUR,
    )
