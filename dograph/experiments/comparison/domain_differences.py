"""A heat map of where methods differ from the baseline: a row a method, a column a domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dograph.experiments.comparison.comparison import Comparison
from dograph.experiments.comparison.curves import Floats
from dograph.experiments.comparison.methods import Method, Paired
from dograph.experiments.comparison.styles import LONGEST
from dograph.reports.figures.appearance import QUIET_COLOUR, TEXT_COLOUR, TITLE, plain, white_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
    from matplotlib.text import Text

WIDE, ROW = 12.8, 0.36
"""Inches."""
MOST_NUMBERS = 14
"""Columns; cells of more are too narrow for numbers, and a scale stands beside them."""
TEXT_SIZE = 9


def domains_figure(comparison: Comparison) -> Figure:
    """Final loss of each domain less the baseline's, the baseline's own in the first row.

    A method that shares no seed with the baseline has no differences, and a dash in each cell.
    """
    own = _finals(comparison.baseline)
    cells = np.array([[0.0] * len(own), *map(_differences, comparison.methods[1:])])
    numbered = len(own) <= MOST_NUMBERS
    figure = white_figure(WIDE, ROW * len(cells) + 2)
    axes = figure.subplots()
    # The root lets small differences be seen beside one large one.
    shade = np.sign(cells) * np.sqrt(np.abs(cells))
    mesh = _paint(axes, shade)
    if numbered:
        _write_numbers(axes, cells, shade / mesh.get_clim()[1], own)
    else:
        _add_scale(figure, axes, mesh)
    _label(axes, comparison, numbered)
    _make_room(figure, axes, len(cells))
    return figure


def _finals(of: Method | Paired) -> list[float]:
    return [end.mean for end in (*of.domains.values(), of.target, of.mean, of.worst)]


def _differences(method: Method) -> list[float]:
    dashes = [float("nan")] * (len(method.domains) + 3)
    return dashes if method.paired is None else _finals(method.paired)


def _paint(axes: Axes, shade: Floats) -> QuadMesh:
    """Cells in violet and orange, as strong as they are far from zero; none where there is NaN."""
    from matplotlib.colors import TwoSlopeNorm

    most = float(np.abs(np.nan_to_num(shade)).max()) or 1.0
    cells, norm = np.ma.masked_invalid(shade), TwoSlopeNorm(0, -most, most)
    mesh = axes.pcolormesh(cells, cmap="PuOr_r", norm=norm, edgecolors="white", linewidth=2)
    axes.invert_yaxis()
    axes.axvline(shade.shape[1] - 3, color=QUIET_COLOUR, linewidth=1.2)
    return mesh


def _write_numbers(axes: Axes, cells: Floats, strength: Floats, own: Sequence[float]) -> None:
    """Writes each difference into its cell, and the baseline's own losses into the first row."""
    for (row, column), value in np.ndenumerate(cells):
        if np.isnan(value):
            colour = TEXT_COLOUR  # on the page's ground
        else:  # fixed: the cells keep their colours
            colour = "#FFFFFE" if abs(strength[row, column]) > 0.72 else "#111111"
        text = _signed(float(value)) if row else f"{own[column]:.3f}"
        number = axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour)
        number.set(fontsize=TEXT_SIZE, weight="normal" if row else "bold")


def _signed(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.3f}".replace("-", "−")


def _add_scale(figure: Figure, axes: Axes, mesh: QuadMesh) -> None:
    """Adds a scale in nats, whose marks are the squares of what is painted."""
    from matplotlib.ticker import FuncFormatter

    scale = figure.colorbar(mesh, ax=axes, pad=0.015, fraction=0.02, aspect=30)
    scale.ax.yaxis.set_major_formatter(FuncFormatter(lambda root, _: _signed(root * abs(root))))
    most = float(mesh.get_clim()[1] or 1.0)
    scale.set_ticks([-most, -most / 2, 0, most / 2, most])
    scale.ax.tick_params(length=0, labelsize=TEXT_SIZE, colors=TEXT_COLOUR)
    scale.outline.set_visible(False)


def _label(axes: Axes, comparison: Comparison, numbered: bool) -> None:
    columns = [plain(name) for name in (*comparison.domains, "target", "mean", "worst")]
    rows = [plain(method.label, LONGEST) for method in comparison.methods]
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.tick_params(length=0, labelsize=TEXT_SIZE, colors=TEXT_COLOUR, top=False)
    for side in axes.spines.values():
        side.set_visible(False)
    title = f"Final loss less {plain(comparison.baseline.label)}'s"
    title += " (first row: its own), in nats" if numbered else ", in nats"
    axes.set_title(title, **TITLE)
    below = "violet: lower, better · orange: higher"
    axes.set_xlabel(below, fontsize=TEXT_SIZE, color=QUIET_COLOUR)


def _make_room(figure: Figure, axes: Axes, rows: int) -> None:
    """Sets margins by the labels' sizes, and turns the domains' names where they are too wide."""
    columns = axes.get_xticklabels()
    left = _widest(axes.get_yticklabels()) / figure.dpi + 0.25
    right = 0.15 if len(figure.axes) == 1 else 0.9  # beside it: the scale
    widest = _widest(columns) / figure.dpi
    if widest + 0.1 > (WIDE - left - right) / len(columns):
        axes.tick_params(axis="x", labelrotation=90)
        below = widest + 0.5
    else:
        below = 0.65
    tall = ROW * rows + 0.5 + below
    figure.set_size_inches(WIDE, tall)
    edges = (left / WIDE, below / tall, 1 - right / WIDE, 1 - 0.5 / tall)
    figure.subplots_adjust(*edges)
    for beside in figure.axes[1:]:
        beside.set_position((edges[2] + 0.012, edges[1], 0.012, edges[3] - edges[1]))
    if len(figure.axes) > 1:
        axes.set_position((edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]))


def _widest(labels: Sequence[Text]) -> float:
    """Pixels, of labels that are not turned."""
    return float(max(label.get_window_extent().width for label in labels))
