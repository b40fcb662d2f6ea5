"""One look for every figure: colours, shapes, and names as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Okabe and Ito's colour-blind-safe set; its yellow, faint on white, gives way to a dark wine.
DOMAIN_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#333333",
    "#882255",
)
# Tol's muted set, so that no cluster is taken for the domain of the same colour.
CLUSTER_COLOURS = (
    "#332288",
    "#88CCEE",
    "#117733",
    "#DDCC77",
    "#CC6677",
    "#44AA99",
    "#AA4499",
    "#999933",
    "#661100",
    "#6699CC",
    "#BBBBBB",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LineStyle = Literal["-", "--", ":", "-."]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
HATCHES = ("", "////", "....", "xxxx")
TEXT_COLOUR = "#222222"
QUIET_COLOUR = "#767676"
LONGEST_NAME = 26


@dataclass(frozen=True)
class Style:
    """How one domain or cluster looks in every figure.

    Attributes:
        colour: repeats after the palette's end.
        marker: differs between neighbours, and between things of the same colour.
        line: differs between things of the same colour.
        hatch: differs between things of the same colour.
    """

    colour: str
    marker: str
    line: LineStyle
    hatch: str


def style(index: int, colours: Sequence[str] = DOMAIN_COLOURS) -> Style:
    """The look of thing number ``index`` ≥ 0; the first 64 domains differ from each other."""
    round_ = index // len(colours)
    return Style(
        colour=colours[index % len(colours)],
        marker=MARKERS[(index + round_) % len(MARKERS)],
        line=LINE_STYLES[round_ % len(LINE_STYLES)],
        hatch=HATCHES[round_ % len(HATCHES)],
    )


def plain(name: str, longest: int = LONGEST_NAME) -> str:
    """A name as matplotlib must be told it to show just that.

    Dollar signs are escaped (they would start a formula), line breaks become spaces, a leading
    underscore is kept from hiding the legend entry, and the middle of a long name is left out.
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


def legend_marker(index: int, label: str, colours: Sequence[str] = DOMAIN_COLOURS) -> Line2D:
    """A legend entry for the points of one domain or cluster."""
    from matplotlib.lines import Line2D

    look = style(index, colours)
    return Line2D(
        [], [], linestyle="", marker=look.marker, color=look.colour, markersize=6.5, label=label
    )


def quiet_axes(axes: Axes) -> None:
    """Leaves the data the strongest thing on the axes."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET_COLOUR)
    axes.tick_params(colors=QUIET_COLOUR, labelsize=8)
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
