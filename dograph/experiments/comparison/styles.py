"""One colour, marker and line for each method in every figure, and legends of them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dograph.files.run_dir import OF_ORACLE
from dograph.reports.figures.appearance import LINE_STYLES, MARKERS, TEXT_COLOUR, Style, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's set with two of Tol's muted one: told apart with any colour vision, and, with
# the page's lighter shades for the two darkest, on white and on black.
COLOURS = {
    "uniform": "#333333",
    "proportional": "#E69F00",
    "temperature": "#999933",
    "dynamic_loss": "#CC79A7",
    "doremi": "#0072B2",
    "doge": "#009E73",
    "dograph": "#D55E00",
    "dograph_anchored": "#882255",
    "dograph_schedule": "#56B4E9",
    "oracle": "#8C8C8C",
}
"""By ``core`` of the recipe's name; other names get one of these colours by their checksum."""
MODEL = re.compile(r"_(gpt|llama|qwen|mistral|gemma|pythia|olmo|opt|phi|bloom)(?![a-z]).*$")
"""The model in a recipe's name: from the first of these words to the end."""
MOST_COLUMNS = 7
LONGEST = 34
"""Letters of an entry."""
LEGEND: dict[str, Any] = {"frameon": False, "labelcolor": TEXT_COLOUR, "fontsize": 9}
ROOM = 0.94
"""Share of the figure's width; a browser's letters may be wider than those measured here."""


def core(name: str) -> str:
    """A recipe's name without folders before it and without the model that ends it.

    >>> core("uniform_gpt2"), core("mine/dograph_anchored_llama_15m"), core("uniform_gpt2_oracle")
    ('uniform', 'dograph_anchored', 'oracle')
    """
    last = name.rpartition("/")[2]
    if last.endswith(OF_ORACLE):
        return OF_ORACLE.strip("_")
    return MODEL.sub("", last) or last


def method_styles(names: Iterable[str]) -> dict[str, Style]:
    """The style of each method.

    Colour, line and marker follow from the ``core`` of the method's own name. If a comparison has
    another method of that colour with the same line or marker, the later in the alphabet changes.

    Args:
        names: names of all recipes of a comparison.
    """
    styles: dict[str, Style] = {}
    for name in sorted(set(names), key=lambda name: (core(name) not in COLOURS, name)):
        colour, line, marker = _own(core(name))
        taken = [style for style in styles.values() if style.colour == colour]
        line, marker = _free(line, marker, taken)
        styles[name] = Style(colour, MARKERS[marker], LINE_STYLES[line], "")
    return styles


def _own(name: str) -> tuple[str, int, int]:
    """Colour, line and marker by the name alone; only known names have solid lines."""
    if name in COLOURS:
        return COLOURS[name], 0, list(COLOURS).index(name) % len(MARKERS)
    colours, number = list(COLOURS.values()), zlib.crc32(name.encode())
    number, colour = divmod(number, len(colours))
    number, line = divmod(number, len(LINE_STYLES) - 1)
    return colours[colour], 1 + line, number % len(MARKERS)


def _free(line: int, marker: int, taken: Sequence[Style]) -> tuple[int, int]:
    """The pair that shares least with what is taken: at best neither, then line or marker."""
    pairs = {(style.line, style.marker) for style in taken}
    lines, markers = ({pair[which] for pair in pairs} for which in (0, 1))
    places = [
        ((line + turn) % len(LINE_STYLES), (marker + turn + turn // len(MARKERS)) % len(MARKERS))
        for turn in range(len(LINE_STYLES) * len(MARKERS))
    ]

    def shared(place: tuple[int, int]) -> tuple[bool, int]:
        pair = LINE_STYLES[place[0]], MARKERS[place[1]]
        return pair in pairs, (pair[0] in lines) + (pair[1] in markers)

    return min(places, key=shared)


def entry(style: Style, label: str, line: bool = True, marker: bool = True) -> Line2D:
    """One entry of a legend."""
    from matplotlib.lines import Line2D

    shape, dash = style.marker if marker else "", style.line if line else ""
    drawn = Line2D([], [], color=style.colour, linestyle=dash, marker=shape, linewidth=1.8)
    drawn.set(markersize=6, label=plain(label, LONGEST))
    return drawn


def legend_below(figure: Figure, entries: Sequence[Line2D]) -> float:
    """Adds a legend below, in as many columns as have room; returns its height in inches."""
    look = {"handles": entries, "loc": "lower center", "handlelength": 2.6, **LEGEND}
    for columns in range(min(len(entries), MOST_COLUMNS), 0, -1):
        legend = figure.legend(ncols=columns, **look)
        box = legend.get_window_extent()
        if columns == 1 or box.width <= ROOM * figure.bbox.width:
            break
        legend.remove()
    return float(box.height) / figure.dpi


def legend_beside(figure: Figure, entries: Sequence[Line2D]) -> float:
    """Adds a legend at the right, in one column; returns its width in inches."""
    legend = figure.legend(handles=entries, loc="center right", **LEGEND)
    return float(legend.get_window_extent().width) / figure.dpi
