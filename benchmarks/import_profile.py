"""What a command imports, by package: read from ``python -X importtime``, and drawn."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from dograph.reports.figures.appearance import DOMAIN_COLOURS, QUIET_COLOUR, TEXT_COLOUR

_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\w+)")


@dataclass(frozen=True)
class Package:
    """One package's share of the imports.

    Attributes:
        name: of the package.
        seconds: its modules' own time, without what they import.
        modules: of it that were imported.
    """

    name: str
    seconds: float
    modules: int


def read_profile(text: str) -> list[Package]:
    """Packages, heaviest first, of what ``python -X importtime`` printed.

    Who asked for a package cannot be told from it: ``importlib.import_module`` leaves no line, and
    the time of such a module counts for whoever called that.
    """
    found = filter(None, map(_LINE.match, text.splitlines()))
    own: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for line in found:
        own[line[2]] += int(line[1])
        modules[line[2]] += 1
    return [Package(name, time / 1e6, modules[name]) for name, time in own.most_common()]


def draw_profile(packages: list[Package], total: float, path: Path) -> None:
    """A bar for each package, as a PNG.

    Args:
        packages: to be drawn, from top to bottom.
        total: seconds of all imports.
        path: of the file.
    """
    figure = Figure(figsize=(7, 0.36 * len(packages) + 1.1), dpi=150, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [package.name for package in packages],
        [package.seconds for package in packages],
        color=DOMAIN_COLOURS[0],
        height=0.65,
    )
    labels = [f"{each.seconds:.2f} s, {each.modules:,} modules" for each in packages]
    axes.bar_label(bars, labels, padding=4, color=QUIET_COLOUR, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4 * max(package.seconds for package in packages))
    axes.tick_params(colors=TEXT_COLOUR)
    axes.set_xlabel("seconds of the package's own modules, without what they import")
    axes.set_title(
        f"lightning run, DoGraph, one step: {total:.1f} s of imports,\n"
        f"the {len(packages)} heaviest packages",
        loc="left",
        fontsize=11,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
