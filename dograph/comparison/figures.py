"""A comparison's figures: losses over tokens, domains, mixtures, cost against quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dograph.comparison.comparison import Comparison, Method
from dograph.comparison.curves import Curve, Score, difference_curve, loss_curve, trajectory
from dograph.comparison.looks import method_styles
from dograph.report.figures.appearance import (
    QUIET_COLOUR,
    TEXT_COLOUR,
    Style,
    plain,
    quiet_axes,
    style,
)
from dograph.report.figures.trajectories import smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_A_ROW = 3
LEGEND_COLUMNS = 6
FULL_COLUMNS = 10
"""Columns of the heat map whose names stand side by side."""
NUMBERED_COLUMNS = 17
"""Columns of the heat map whose cells have room for numbers."""
TITLE_SIZE, TEXT_SIZE = 10, 8


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """All figures by name, in the order in which they are read."""
    return {
        "loss": loss_figure(comparison),
        "domains": domains_figure(comparison),
        "cost": cost_figure(comparison),
        "mixtures": mixtures_figure(comparison),
    }


def loss_figure(comparison: Comparison) -> Figure:
    """Mean loss over tokens, then mean and worst less the baseline's; bands are 95 % intervals."""
    from matplotlib.figure import Figure

    base, looks = comparison.baseline, _looks(comparison)
    rows = -(-len(comparison.methods) // LEGEND_COLUMNS)
    tall = 4.1 + 0.22 * rows
    figure = Figure(figsize=(12.8, tall), dpi=110, facecolor="white")
    panels = figure.subplots(1, 3)
    bottom = (0.75 + 0.22 * rows) / tall
    figure.subplots_adjust(left=0.05, right=0.99, top=1 - 0.6 / tall, bottom=bottom, wspace=0.2)
    name = plain(base.label)
    _dress(panels[0], "Mean loss", "over the domains, nats a token", "tokens")
    for method in reversed(comparison.methods):
        _draw_curve(panels[0], loss_curve(method, "mean"), looks[method.name], method is base)
    scores: tuple[tuple[Axes, Score], ...] = ((panels[1], "mean"), (panels[2], "worst"))
    for axes, score in scores:
        title = f"{score.capitalize()} loss, difference"
        _dress(axes, title, f"less {name}'s with the same seed; bands: 95 %", "tokens")
        for method in reversed(comparison.methods):
            curve = difference_curve(method, base, score)
            _band(axes, curve, looks[method.name])
            _draw_curve(axes, curve, looks[method.name], method is base)
    for axes in panels:
        _in_thousands(axes)
    entries = [_entry(looks[method.name], method.label) for method in comparison.methods]
    figure.legend(
        handles=entries,
        loc="lower center",
        ncols=min(len(entries), LEGEND_COLUMNS),
        frameon=False,
        labelcolor=TEXT_COLOUR,
        fontsize=TEXT_SIZE + 1,
    )
    return figure


def _draw_curve(axes: Axes, curve: Curve, look: Style, thick: bool) -> None:
    axes.plot(
        list(curve),
        [point.mean for point in curve.values()],
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markersize=4.5,
        linewidth=2.4 if thick else 1.6,
    )


def _band(axes: Axes, curve: Curve, look: Style) -> None:
    bounds = [point.bounds for point in curve.values()]
    if not bounds or None in bounds:
        return
    low, high = np.array(bounds, float).T
    axes.fill_between(list(curve), low, high, color=look.colour, alpha=0.1, linewidth=0)


def domains_figure(comparison: Comparison) -> Figure:
    """Final loss of each domain less the baseline's, the baseline's own in the first row."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure

    columns = [*comparison.domains, "mean", "worst"]
    own = _row(comparison.baseline, False)
    rows = [_row(method, True) for method in comparison.methods[1:]]
    cells = np.array([[0.0] * len(columns), *rows])
    height, width = cells.shape
    crowded = width > FULL_COLUMNS
    below = 1.7 if crowded else 0.65
    tall = 0.85 + below + 0.36 * height
    figure = Figure(figsize=(12.8, tall), dpi=110, facecolor="white")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.15, right=0.99, top=1 - 0.5 / tall, bottom=below / tall)
    # The root lets small differences be seen beside one large one; the numbers are in the cells.
    known = np.nan_to_num(cells)
    shade = np.sign(known) * np.sqrt(np.abs(known))
    most = float(np.abs(shade).max()) or 1.0
    axes.pcolormesh(
        shade, cmap="PuOr_r", norm=TwoSlopeNorm(0, -most, most), edgecolors="white", linewidth=2
    )
    if width <= NUMBERED_COLUMNS:
        _write_cells(axes, cells, own, np.abs(shade) > 0.72 * most, 9 if not crowded else 7)
    axes.invert_yaxis()
    axes.axvline(width - 2, color=QUIET_COLOUR, linewidth=1.2)
    axes.set_xticks(np.arange(width) + 0.5, [plain(name, 18) for name in columns])
    if crowded:
        axes.tick_params(axis="x", labelrotation=60)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axes.set_yticks(
        np.arange(height) + 0.5, [plain(method.label, 22) for method in comparison.methods]
    )
    axes.tick_params(length=0, labelsize=9 if width <= 24 else 7, colors=TEXT_COLOUR, top=False)
    for side in axes.spines.values():
        side.set_visible(False)
    title = f"Final loss less {plain(comparison.baseline.label)}'s, paired, in nats"
    first = " (first row: its own)" if width <= NUMBERED_COLUMNS else ""
    axes.set_title(title + first, fontsize=TITLE_SIZE, loc="left", color=TEXT_COLOUR, weight="bold")
    axes.set_title(
        "violet: lower, better · orange: higher", fontsize=9, loc="right", color=QUIET_COLOUR
    )
    return figure


def _write_cells(
    axes: Axes,
    cells: npt.NDArray[np.float64],
    own: Sequence[float],
    strong: npt.NDArray[np.bool_],
    size: int,
) -> None:
    """The baseline's losses in the first row, differences below."""
    for (row, column), value in np.ndenumerate(cells):
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{own[column]:.3f}" if row == 0 else _signed(float(value)),
            ha="center",
            va="center",
            fontsize=size,
            # Fixed: the cells keep their colours on a dark page.
            color="#FFFFFE" if strong[row, column] else "#111111",
            weight="bold" if row == 0 else "normal",
        )


def _row(method: Method, paired: bool) -> list[float]:
    if not paired:
        ends = [*method.domains.values(), method.mean, method.worst]
        return [end.mean for end in ends]
    if method.paired is None:
        return [float("nan")] * (len(method.domains) + 2)
    differences = [*method.paired.domains.values(), method.paired.mean, method.paired.worst]
    return [difference.mean for difference in differences]


def _signed(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.3f}".replace("-", "−")


def cost_figure(comparison: Comparison) -> Figure:
    """Final mean loss against what all stages cost, in FLOPs and in seconds of training."""
    from matplotlib.figure import Figure

    looks = _looks(comparison)
    tall = max(4.4, 0.6 + 0.22 * len(comparison.methods))
    figure = Figure(figsize=(12.8, tall), dpi=110, facecolor="white")
    panels = figure.subplots(1, 2, sharey=True)
    top, bottom = 1 - 0.57 / tall, 0.57 / tall
    figure.subplots_adjust(left=0.06, right=0.78, top=top, bottom=bottom, wspace=0.08)
    for axes, key, name in (
        (panels[0], "flops", "FLOPs, estimated, all stages"),
        (panels[1], "seconds", "seconds of training, all stages"),
    ):
        _dress(axes, "Mean loss", "nats a token; bars: 95 % intervals over seeds", name)
        for method in comparison.methods:
            look, cost = looks[method.name], method.cost[key]
            axes.errorbar(
                cost.mean,
                method.mean.mean,
                xerr=cost.half or 0,
                yerr=method.mean.half or 0,
                fmt=look.marker,
                color=look.colour,
                markersize=8,
                elinewidth=1.2,
            )
        axes.set_xlim(left=0)
        _in_thousands(axes)
        axes.axhline(
            comparison.baseline.mean.mean, color=QUIET_COLOUR, linewidth=0.8, dashes=(4, 4)
        )
    best_first = sorted(comparison.methods, key=lambda method: method.mean.mean)
    entries = [
        _entry(looks[method.name], f"{method.label}  {method.mean.mean:.3f}", line=False)
        for method in best_first
    ]
    figure.legend(
        handles=entries,
        loc="center left",
        bbox_to_anchor=(0.79, 0.5),
        frameon=False,
        labelcolor=TEXT_COLOUR,
        fontsize=9,
    )
    return figure


def mixtures_figure(comparison: Comparison) -> Figure:
    """How each method's mixture moved, a panel each, one colour a domain throughout."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    methods = comparison.methods
    rows = -(-len(methods) // PANELS_A_ROW)
    longest = max(len(plain(name, 34)) for name in comparison.domains)
    beside = max(1, min(len(comparison.domains), 150 // (longest + 8)))
    below = 0.7 + 0.2 * -(-len(comparison.domains) // beside)
    tall = 2.5 * rows + below
    figure = Figure(figsize=(12.8, tall), dpi=110, facecolor="white")
    grid = figure.subplots(rows, PANELS_A_ROW, sharey=True, squeeze=False).ravel()
    bottom = below / tall
    figure.subplots_adjust(0.05, bottom, 0.99, 1 - 0.4 / tall, wspace=0.06, hspace=0.5)
    for axes, method in zip(grid, methods, strict=False):
        moved = trajectory(method)
        wide = max(1, len(moved.shares) // 12)
        _dress(axes, plain(method.label), moved.meaning, "optimiser step")
        for index, line in enumerate(smoothed(moved.shares, wide).T):
            look = style(index)
            axes.plot(moved.steps, line, color=look.colour, linestyle=look.line, linewidth=1.6)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    grid[0].set_ylim(bottom=0)  # shared, now that all lines are there
    for axes in grid[len(methods) :]:
        axes.set_visible(False)
    entries = [
        _entry(style(index), name, marker=False) for index, name in enumerate(comparison.domains)
    ]
    figure.legend(
        handles=entries,
        loc="lower center",
        ncols=beside,
        frameon=False,
        labelcolor=TEXT_COLOUR,
        fontsize=TEXT_SIZE + 1,
    )
    return figure


def _looks(comparison: Comparison) -> dict[str, Style]:
    return method_styles([method.name for method in comparison.methods])


def _entry(look: Style, label: str, line: bool = True, marker: bool = True) -> object:
    """A legend entry."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=look.line if line else "",
        marker=look.marker if marker else "",
        markersize=6,
        linewidth=1.8,
        label=plain(label, 34),
    )


def _dress(axes: Axes, title: str, meaning: str, below: str) -> None:
    quiet_axes(axes)
    axes.set_title(title, fontsize=TITLE_SIZE, loc="left", color=TEXT_COLOUR, weight="bold", pad=16)
    axes.text(0, 1.02, meaning, transform=axes.transAxes, fontsize=TEXT_SIZE, color=QUIET_COLOUR)
    axes.set_xlabel(below, fontsize=TEXT_SIZE, color=QUIET_COLOUR)


def _in_thousands(axes: Axes) -> None:
    """Few ticks, as 400 k or 4.8 T."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
