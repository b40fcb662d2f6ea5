"""The domain graph: clusters of gradients or domains, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dograph.reports.figures import appearance, layout
from dograph.reports.figures.appearance import percent, plain, style_of
from dograph.reports.figures.layout import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

    from dograph.graph.domain_graph import DomainGraph

Counts = npt.NDArray[np.int64]
NEIGHBOURS_DRAWN = 3
PAGE = np.array([1.30, 0.96])
NODE_SCALE, SMALLEST_RADIUS = 0.27, 0.02
LABEL_WIDTH, LABEL_HEIGHT, LETTER_WIDTH = 0.36, 0.125, 0.028
LONGEST_NODE = 18


def domain_graph_figure(
    graph: DomainGraph,
    domain: Tensor | None,
    names: Sequence[str],
    title: str = "Domain graph",
    nodes: Sequence[str] | None = None,
) -> Figure:
    """Draws the nodes near each other where their gradients are alike.

    Nodes lie by classical multidimensional scaling of MMD (moved only where they or their
    labels would overlap); their area is the weight, their slices the human domains inside.
    Edges join each node to its three nearest, dark and thick where MMD is small.

    Args:
        graph: m nodes; ``distances`` (m, m) are squared MMD.
        domain: (n,) human domain of each sequence of ``graph.labels``. None: plain nodes.
        names: the S human domains.
        title: over the figure.
        nodes: the m nodes' names, where each is a domain and ``graph.labels`` counts them. None:
            they are clusters of sequences.
    """
    squared = _squared_mmd(graph)
    weights = graph.weights.detach().cpu().double().numpy()
    plane, kept = layout.squared_distance_plane(squared)
    radii = np.maximum(NODE_SCALE * np.sqrt(np.clip(weights, 0, None)), SMALLEST_RADIUS)
    texts = _texts(graph, nodes)
    lengths = np.array([0 if nodes is None else len(text.split("\n")[0]) for text in texts])
    places = _node_places(plane, radii, np.maximum(LABEL_WIDTH, LETTER_WIDTH * lengths))
    slices = None if domain is None else _domain_counts(graph, domain, len(names))

    figure = appearance.white_figure(8.6, 5.4)
    axes = figure.add_axes((0.01, 0.03, 0.73, 0.86))
    axes.set(xlim=(-PAGE[0], PAGE[0]), ylim=(-PAGE[1], PAGE[1]), aspect="equal")
    axes.axis("off")
    measure = "MMD" if nodes is None else "distance"
    _draw_edges(figure, axes, places, np.sqrt(squared), f"{measure} of the joined nodes")
    _draw_nodes(axes, places, radii, slices)
    _draw_labels(axes, places, radii, texts)
    explanation = "area: weight · n: sequences" if nodes is None else "area: what is drawn"
    if slices is not None and nodes is None:
        _draw_domain_legend(figure, names, slices)
        explanation += " · slices: human domains"
    if not squared.any():
        explanation += f" · every {measure} is 0: the places mean nothing"
    elif len(weights) > 3:
        explanation += f" · the plane keeps {percent(kept)} of the squared {measure}"
    ink = appearance.TEXT_COLOUR
    figure.text(0.02, 0.955, plain(title, 80), fontsize=12, color=ink, weight="bold")
    figure.text(0.02, 0.912, explanation, **appearance.QUIET)
    return figure


def _squared_mmd(graph: DomainGraph) -> Floats:
    """(m, m) squared distances, exactly 0 where they are but rounding."""
    squared = np.clip(graph.distances.detach().cpu().double().numpy(), 0, None)
    rounding = 1e-12 * float(graph.kernel.detach().diagonal().abs().max())
    return np.where(squared <= rounding, 0.0, squared)


def _node_places(plane: Floats, radii: Floats, widths: Floats) -> Floats:
    """(m, 2) centres; each node keeps room for itself and the label of a width below it."""
    tall = radii + LABEL_HEIGHT / 2
    halves = np.stack([np.maximum(radii + 0.02, widths / 2), tall + 0.015], axis=1)
    below = np.stack([np.zeros_like(radii), np.full_like(radii, LABEL_HEIGHT / 2)], axis=1)
    room = np.maximum(PAGE - halves.max(axis=0), 0.1)
    return layout.boxes_apart(layout.scaled_to_fit(plane, room) - below, halves, PAGE) + below


def _domain_counts(graph: DomainGraph, domain: Tensor, domains: int) -> Counts:
    """(m, S) sequences of each human domain in each cluster."""
    table = np.zeros((graph.weights.numel(), domains), dtype=np.int64)
    np.add.at(table, (graph.labels.detach().cpu().numpy(), domain.detach().cpu().numpy()), 1)
    return table


def nearest_pairs(distances: Floats, neighbours: int = NEIGHBOURS_DRAWN) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, where one is among the nearest of the other; each pair once."""
    apart = distances.copy()
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, : min(neighbours, len(apart) - 1)]
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row}
    return sorted(pairs)


def _draw_edges(
    figure: Figure, axes: Axes, places: Floats, distances: Floats, measure: str
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    pairs = nearest_pairs(distances)
    if not pairs:
        return
    lengths = np.array([distances[pair] for pair in pairs])
    order = np.argsort(-lengths)  # the nearest on top
    lines = [[tuple(places[i]), tuple(places[j])] for i, j in (pairs[k] for k in order)]
    least, most = float(lengths.min()), float(lengths.max())
    if most - least <= 1e-9 * most:  # all alike: neither near nor far
        axes.add_collection(LineCollection(lines, colors="#B0B0B0", linewidths=1.2, zorder=1))
        return
    shades = LinearSegmentedColormap.from_list("affinity", ["#303030", "#8C8C8C", "#DADADA"])
    norm = Normalize(least, most)
    farness = np.asarray(norm(lengths[order]))
    look: dict[str, Any] = {"colors": shades(farness), "capstyle": "round", "zorder": 1}
    axes.add_collection(LineCollection(lines, linewidths=0.8 + 3.2 * (1 - farness), **look))
    _draw_colour_bar(figure, norm, shades, measure)


def _draw_colour_bar(figure: Figure, norm: Normalize, shades: Colormap, measure: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    place = figure.add_axes((0.765, 0.13, 0.2, 0.022))
    bar = figure.colorbar(ScalarMappable(norm, shades), cax=place, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(3)
    numbers = ScalarFormatter()
    numbers.set_powerlimits((-2, 3))
    bar.formatter = numbers
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8, colors=appearance.QUIET_COLOUR, length=2)
    bar.ax.xaxis.get_offset_text().set(**appearance.QUIET)
    bar.ax.set_title(measure, **appearance.SMALL, loc="left", pad=4)


def _draw_nodes(axes: Axes, places: Floats, radii: Floats, slices: Counts | None) -> None:
    from matplotlib.patches import Circle, Wedge

    for node, (place, radius) in enumerate(zip(places, radii, strict=True)):
        centre = (float(place[0]), float(place[1]))
        axes.add_patch(Circle(centre, radius + 0.012, color="white", zorder=2))
        total = 0 if slices is None else int(slices[node].sum())
        if slices is None or total == 0:
            colour = style_of(node, appearance.CLUSTER_COLOURS).colour
            axes.add_patch(Circle(centre, radius, facecolor=colour, edgecolor="white", zorder=3))
            continue
        start = 90.0
        for index in np.flatnonzero(slices[node]):
            angle = 360 * slices[node, index] / total
            wedge = Wedge(centre, radius, start - angle, start, **_filling(int(index)))
            wedge.set(linewidth=0.5, zorder=3)
            axes.add_patch(wedge)
            start -= angle


def _filling(domain: int) -> dict[str, Any]:
    style = style_of(domain)
    return {"facecolor": style.colour, "hatch": style.hatch, "edgecolor": "white"}


def _texts(graph: DomainGraph, nodes: Sequence[str] | None) -> list[str]:
    """Each node's name or number and, in a second line, its weight and sequences."""
    shares = [percent(weight) for weight in graph.weights.tolist()]
    if nodes is not None:
        names = [plain(name, LONGEST_NODE) for name in nodes]
        return [f"{name}\n{share}" for name, share in zip(names, shares, strict=True)]
    labels = enumerate(zip(shares, graph.counts.tolist(), strict=True), start=1)
    return [f"{number}\n{share} · n {count}" for number, (share, count) in labels]


def _draw_labels(axes: Axes, places: Floats, radii: Floats, texts: Sequence[str]) -> None:
    """Writes each node's text below it."""
    box = {"boxstyle": "round,pad=0.08", "color": "white", "alpha": 0.82, "linewidth": 0}
    look = {**appearance.SMALL, "linespacing": 1.05, "zorder": 5, "bbox": box}
    for place, radius, text in zip(places, radii, texts, strict=True):
        axes.text(place[0], place[1] - radius - 0.02, text, ha="center", va="top", **look)


def _draw_domain_legend(figure: Figure, names: Sequence[str], slices: Counts) -> None:
    from matplotlib.patches import Patch

    shares = slices.sum(axis=0) / max(slices.sum(), 1)
    handles = [
        Patch(**_filling(index), label=f"{plain(name, 20)}  {percent(shares[index])}")
        for index, name in enumerate(names)
    ]
    crowded = len(names) > 16
    figure.legend(
        handles=handles,
        title="human domain, share of n",
        title_fontsize=8,
        fontsize=7 if crowded else 8,
        labelspacing=0.25 if crowded else 0.5,
        loc="upper left",
        bbox_to_anchor=(0.75, 0.9),
        frameon=False,
        alignment="left",
        handlelength=1.2,
        labelcolor=appearance.TEXT_COLOUR,
    )
