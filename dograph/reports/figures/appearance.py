"""One style for every figure: colours, shapes, and names as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's colour-blind-safe set; its yellow, faint on white, gives way to a dark wine.
_COLOURS = "#0072B2 #E69F00 #009E73 #CC79A7 #D55E00 #56B4E9 #333333 #882255"
DOMAIN_COLOURS = tuple(_COLOURS.split())
# Tol's muted set, so that no cluster is taken for the domain of the same colour.
_COLOURS = "#332288 #88CCEE #117733 #DDCC77 #CC6677 #44AA99 #AA4499 #999933 #661100 #6699CC #BBBBBB"
CLUSTER_COLOURS = tuple(_COLOURS.split())
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LineStyle = Literal["-", "--", ":", "-."]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
HATCHES = ("", "////", "....", "xxxx")
TEXT_COLOUR = "#222222"
QUIET_COLOUR = "#767676"
LONGEST_NAME = 26
SMALL: dict[str, Any] = {"fontsize": 8, "color": TEXT_COLOUR}
QUIET: dict[str, Any] = {"fontsize": 8, "color": QUIET_COLOUR}
TITLE: dict[str, Any] = {"fontsize": 10, "loc": "left", "color": TEXT_COLOUR, "weight": "bold"}


@dataclass(frozen=True)
class Style:
    """How one domain or cluster is drawn in every figure.

    Colours repeat after the palette's end; marker, line and hatch differ between things of the
    same colour, and markers between neighbours.
    """

    colour: str
    marker: str
    line: LineStyle
    hatch: str


def style_of(index: int, colours: Sequence[str] = DOMAIN_COLOURS) -> Style:
    """The style of domain or cluster ``index`` ≥ 0; the first 64 domains differ."""
    round_ = index // len(colours)
    return Style(
        colour=colours[index % len(colours)],
        marker=MARKERS[(index + round_) % len(MARKERS)],
        line=LINE_STYLES[round_ % len(LINE_STYLES)],
        hatch=HATCHES[round_ % len(HATCHES)],
    )


def white_figure(wide: float, tall: float, **settings: Any) -> Figure:
    """An empty figure, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(wide, tall), dpi=110, facecolor="white", **settings)


def plain(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that matplotlib shows as it is.

    Dollar signs are escaped (they would start a formula), line breaks become spaces, a leading
    underscore cannot hide the legend entry, and the middle of a long name is left out.
    """
    text = " ".join(name.split()) or "(no name)"
    if len(text) > longest:
        head = (longest - 1) // 2
        text = f"{text[:head]}…{text[-(longest - 1 - head) :]}"
    if text.startswith("_"):
        text = f" {text}"
    return text.replace("$", r"\$")


def percent(share: float) -> str:
    """A share in [0, 1] as a short percentage: 41 %, 4.1 %, 0.41 %."""
    value = 100 * share
    if value == 0 or value >= 9.95:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.95 else f"{value:.2g} %"


def legend_marker(index: int, name: str) -> Line2D:
    """A legend entry for the points of one domain."""
    from matplotlib.lines import Line2D

    style, size = style_of(index), 6.5
    look: dict[str, Any] = {"marker": style.marker, "color": style.colour, "markersize": size}
    return Line2D([], [], linestyle="", label=plain(name), **look)


def title_panel(axes: Axes, title: str, meaning: str) -> None:
    """Writes a panel's title, and its meaning below in small print."""
    axes.set_title(title, **TITLE, pad=16)
    above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(meaning, (0, 1), (0, 5), **above, **QUIET)


def label_steps(axes: Axes) -> None:
    """Makes the x axis one of optimiser steps."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("optimiser step", **QUIET)


def label_percent(axes: Axes, highest: float, across: bool = False) -> None:
    """Makes the y axis, or the one ``across``, one of shares up to ``highest``, in percent."""
    from matplotlib.ticker import PercentFormatter

    decimals = 0 if highest > 0.24 else None  # below, the ticks are at 2.5 % and the like
    axis = axes.xaxis if across else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1, decimals, symbol=" %"))


def quiet_axes(axes: Axes) -> None:
    """Draws spines, ticks and grid weaker than the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET_COLOUR)
    axes.tick_params(colors=QUIET_COLOUR, labelsize=8)
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
