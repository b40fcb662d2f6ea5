"""One colour, marker and line for each method, in every figure of every comparison."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import product

from dograph.report.figures.appearance import LINE_STYLES, MARKERS, Style

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
}
"""By the recipe's name without the model's; other methods take these, with other lines."""
MODEL = re.compile(r"_(gpt2|gpt_neox|llama)\w*$")
"""What recipes' names say of the model, which is no matter of the method."""


def method_styles(names: Sequence[str]) -> dict[str, Style]:
    """The look of each method: known ones always the same, others by a hash of their name.

    Args:
        names: the recipes' names of all methods of a comparison; where two hashes meet, the later
            name in the alphabet gives way.
    """
    looks = {}
    for name in names:
        known = MODEL.sub("", name)
        if known in COLOURS:
            place = list(COLOURS).index(known)
            looks[name] = Style(COLOURS[known], MARKERS[place % len(MARKERS)], "-", "")
    free = list(product(LINE_STYLES[1:], COLOURS.values()))
    for name in sorted(set(names) - set(looks)):
        first = zlib.crc32(name.encode())
        taken = {(look.line, look.colour) for look in looks.values()}
        places = [(first + step) % len(free) for step in range(len(free))]
        place = next((p for p in places if free[p] not in taken), places[0])
        line, colour = free[place]
        looks[name] = Style(colour, MARKERS[place % len(MARKERS)], line, "")
    return looks
