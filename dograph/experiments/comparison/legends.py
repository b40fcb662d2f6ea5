"""Legends as large as their entries need, which return their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dograph.reports.figures.appearance import TEXT_COLOUR, Style, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

TEXT_SIZE = 9
MOST_COLUMNS = 7
LONGEST = 34
"""Letters of an entry."""
ROOM = 0.94
"""Share of the figure's width; a browser's letters may be wider than those measured here."""


def entry(style: Style, label: str, line: bool = True, marker: bool = True) -> Line2D:
    """One entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=style.colour,
        linestyle=style.line if line else "",
        marker=style.marker if marker else "",
        markersize=6,
        linewidth=1.8,
        label=plain(label, LONGEST),
    )


def legend_below(figure: Figure, entries: Sequence[Line2D]) -> float:
    """Adds a legend at the figure's lower edge, in as many columns as have room.

    Returns:
        its height in inches.
    """
    for columns in range(min(len(entries), MOST_COLUMNS), 0, -1):
        legend = figure.legend(
            handles=entries,
            loc="lower center",
            ncols=columns,
            frameon=False,
            labelcolor=TEXT_COLOUR,
            fontsize=TEXT_SIZE,
            handlelength=2.6,
        )
        box = legend.get_window_extent()
        if columns == 1 or box.width <= ROOM * figure.bbox.width:
            break
        legend.remove()
    return float(box.height) / figure.dpi


def legend_beside(figure: Figure, entries: Sequence[Line2D]) -> float:
    """Adds a legend at the figure's right edge, in one column.

    Returns:
        its width in inches.
    """
    legend = figure.legend(
        handles=entries,
        loc="center right",
        frameon=False,
        labelcolor=TEXT_COLOUR,
        fontsize=TEXT_SIZE,
    )
    return float(legend.get_window_extent().width) / figure.dpi
