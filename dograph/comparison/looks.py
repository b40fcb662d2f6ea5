"""One colour, marker and line for each method, in every figure of every comparison."""

from __future__ import annotations

from collections.abc import Sequence

from dograph.report.figures.appearance import LINE_STYLES, MARKERS, Style

# Okabe and Ito's set with two of Tol's muted one: told apart with any colour vision, and, with
# the page's lighter shades for the two darkest, on white and on black.
COLOURS = {
    "uniform": "#333333",
    "proportional": "#E69F00",
    "temperature": "#999933",
    "dynamic loss": "#CC79A7",
    "doremi": "#0072B2",
    "doge": "#009E73",
    "dograph": "#D55E00",
    "dograph anchored": "#882255",
    "dograph schedule": "#56B4E9",
}
"""By label; other methods take these colours in turn, with other lines."""


def method_styles(labels: Sequence[str]) -> dict[str, Style]:
    """The look of each method: known ones always the same, others by their order in the alphabet.

    Args:
        labels: of all methods of a comparison.
    """
    known = list(COLOURS)
    looks = {}
    for label in labels:
        if label in COLOURS:
            place = known.index(label)
            looks[label] = Style(COLOURS[label], MARKERS[place % len(MARKERS)], "-", "")
    colours = list(COLOURS.values())
    for index, label in enumerate(sorted(set(labels) - set(known))):
        round_ = 1 + index // len(colours)
        looks[label] = Style(
            colours[(index + 4) % len(colours)],
            MARKERS[(index + 2) % len(MARKERS)],
            LINE_STYLES[round_ % len(LINE_STYLES)],
            "",
        )
    return looks
