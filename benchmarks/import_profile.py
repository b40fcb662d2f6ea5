"""Import time of a command by package, read from ``python -X importtime`` and drawn."""

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
        name: the package's name.
        seconds: its modules' own time, without their imports.
        modules: number of its modules imported.
    """

    name: str
    seconds: float
    modules: int


def read_profile(text: str) -> list[Package]:
    """Read packages, slowest first, from the output of ``python -X importtime``.

    The output does not show which package imported another: ``importlib.import_module`` leaves no
    line, and such a module's time counts for its caller.
    """
    lines = filter(None, map(_LINE.match, text.splitlines()))
    own: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for line in lines:
        own[line[2]] += int(line[1])
        modules[line[2]] += 1
    return [Package(name, time / 1e6, modules[name]) for name, time in own.most_common()]


def draw_profile(packages: list[Package], total: float, path: Path) -> None:
    """Draw a bar for each package as a PNG.

    Args:
        packages: the bars, from top to bottom.
        total: seconds of all imports.
        path: file to write.
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
    axes.set_xlabel("seconds of the package's own modules, without their imports")
    axes.set_title(
        f"lightning run, DoGraph, one step: {total:.1f} s of imports,\n"
        f"the {len(packages)} slowest packages",
        loc="left",
        fontsize=11,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
