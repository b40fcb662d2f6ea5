"""A comparison's figures: losses over tokens, domains, cost against quality, mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dograph.experiments.comparison.comparison import Comparison
from dograph.experiments.comparison.curves import Curve, difference_curve, loss_curve, trajectory
from dograph.experiments.comparison.domain_differences import domains_figure
from dograph.experiments.comparison.styles import (
    entry,
    legend_below,
    legend_beside,
    method_styles,
)
from dograph.reports.figures import appearance
from dograph.reports.figures.appearance import QUIET, Style, plain, quiet_axes, title_panel
from dograph.reports.figures.trajectories import smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 12.8
"""Inches, of every figure."""
PANELS_A_ROW = 3


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """All figures by name, in the order in which they are read."""
    return {
        "loss": loss_figure(comparison),
        "domains": domains_figure(comparison),
        "cost": cost_figure(comparison),
        "mixtures": mixtures_figure(comparison),
    }


def loss_figure(comparison: Comparison) -> Figure:
    """Target's loss over tokens; it and the worst less the baseline's; each with its end beside it.

    Intervals are drawn for the end only, next to each other; bands over the whole length would
    lie upon each other.
    """
    base, methods = comparison.baseline, comparison.methods
    styles = method_styles(method.name for method in methods)
    own = [styles[method.name] for method in methods]
    figure = appearance.white_figure(WIDE, 4)
    legend = legend_below(figure, [entry(styles[each.name], each.label) for each in methods])
    tall = 4.1 + legend
    figure.set_size_inches(WIDE, tall)
    panels = figure.subplots(1, 3)
    strip = min(max(0.24, 0.14 + 0.018 * len(methods)), 0.45)
    figure.subplots_adjust(
        left=0.045,
        right=0.99 - 0.28 * strip / (1 + strip),
        top=1 - 0.6 / tall,
        bottom=(legend + 0.6) / tall,
        wspace=strip + 0.2,
    )
    less = f"less {plain(base.label)}'s with the same seed"
    target = f"{plain(comparison.target.label)}, nats a token"
    aimed = [difference_curve(method, base) for method in methods]
    worst = [difference_curve(method, base, "worst") for method in methods]
    for axes, title, meaning, curves in (
        (panels[0], "Target's loss", target, list(map(loss_curve, methods))),
        (panels[1], "Target's loss, difference", less, aimed),
        (panels[2], "Worst loss, difference", less, worst),
    ):
        _label(axes, title, meaning, "tokens")
        _draw_lines(axes, curves, own)
        _in_thousands(axes)
        _draw_ends(axes.inset_axes((1.02, 0, strip, 1), sharey=axes), curves, own)
    return figure


def _draw_lines(axes: Axes, curves: Sequence[Curve], styles: Sequence[Style]) -> None:
    """Draws the first, the baseline's, last and strongest."""
    for index in reversed(range(len(curves))):
        curve, style, width = curves[index], styles[index], 1.6 if index else 2.4
        look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "markersize": 4.5}
        axes.plot(curve.tokens, curve.mean, linestyle=style.line, linewidth=width, **look)


def _draw_ends(axes: Axes, curves: Sequence[Curve], styles: Sequence[Style]) -> None:
    """Draws each curve's last point with its interval, beside each other in the legend's order."""
    quiet_axes(axes)
    axes.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.8, len(curves) - 0.2)
    axes.set_xlabel("end ± 95 %", **QUIET)
    for place, (curve, style) in enumerate(zip(curves, styles, strict=True)):
        if not len(curve.mean):
            continue
        end = curve.mean[-1]
        half = None if curve.bounds is None else curve.bounds[1][-1] - end
        look: dict[str, Any] = {"color": style.colour, "markersize": 5, "elinewidth": 1.4}
        axes.errorbar(place, end, yerr=half or None, fmt=style.marker, **look)


def cost_figure(comparison: Comparison) -> Figure:
    """The target's final loss against what all stages cost, in FLOPs and seconds of training."""
    styles = method_styles(method.name for method in comparison.methods)
    best_first = sorted(comparison.methods, key=lambda method: method.target.mean)
    tall = max(4.4, 0.6 + 0.21 * len(best_first))
    figure = appearance.white_figure(WIDE, tall)
    labels = {method.name: f"{method.label}  {method.target.mean:.3f}" for method in best_first}
    entries = [entry(styles[name], label, line=False) for name, label in labels.items()]
    legend = legend_beside(figure, entries)
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(
        left=0.06,
        right=1 - (legend + 0.3) / WIDE,
        top=1 - 0.6 / tall,
        bottom=0.55 / tall,
        wspace=0.08,
    )
    for axes, key, name in (
        (panels[0], "flops", "FLOPs, estimated, all stages"),
        (panels[1], "seconds", "seconds of training, all stages"),
    ):
        _label(axes, "Target's loss", "nats a token; bars: 95 % intervals over seeds", name)
        _draw_costs(axes, comparison, styles, key)
        axes.set_xlim(left=0)
        _in_thousands(axes)
        level = comparison.baseline.target.mean
        axes.axhline(level, color=appearance.QUIET_COLOUR, linewidth=0.8, dashes=(4, 4))
    return figure


def _draw_costs(axes: Axes, comparison: Comparison, styles: Mapping[str, Style], key: str) -> None:
    for method in comparison.methods:
        style, cost, loss = styles[method.name], method.cost[key], method.target
        bars: dict[str, Any] = {"xerr": cost.half or 0, "yerr": loss.half or 0, "elinewidth": 1.2}
        look: dict[str, Any] = {"color": style.colour, "ecolor": (style.colour, 0.55)}
        axes.errorbar(cost.mean, loss.mean, fmt=style.marker, markersize=8, **look, **bars)


def mixtures_figure(comparison: Comparison) -> Figure:
    """How each method's mixture moved, a panel each, one colour a domain throughout."""
    methods, domains = comparison.methods, comparison.domains
    rows = -(-len(methods) // PANELS_A_ROW)
    figure = appearance.white_figure(WIDE, 4)
    styles = map(appearance.style_of, range(len(domains)))
    entries = [entry(*pair, marker=False) for pair in zip(styles, domains, strict=True)]
    legend = legend_below(figure, entries)
    tall = 2.5 * rows + 0.4 + legend
    figure.set_size_inches(WIDE, tall)
    grid = figure.subplots(rows, PANELS_A_ROW, sharey=True, squeeze=False).ravel()
    edges = (0.05, (legend + 0.6) / tall, 0.99, 1 - 0.6 / tall)
    figure.subplots_adjust(*edges, wspace=0.06, hspace=0.6)
    for axes, method in zip(grid, methods, strict=False):
        moved = trajectory(method, domains)
        wide = max(1, len(moved.shares) // 12)
        quiet_axes(axes)
        title_panel(axes, plain(method.label), moved.meaning)
        appearance.label_steps(axes)
        for index, line in enumerate(smoothed(moved.shares, wide).T):
            style = appearance.style_of(index)
            axes.plot(moved.steps, line, color=style.colour, linestyle=style.line, linewidth=1.6)
    grid[0].set_ylim(bottom=0)  # shared, now that all lines are there
    appearance.label_percent(grid[0], grid[0].get_ylim()[1])
    for axes in grid[len(methods) :]:
        axes.set_visible(False)
    return figure


def _label(axes: Axes, title: str, meaning: str, below: str) -> None:
    quiet_axes(axes)
    title_panel(axes, title, meaning)
    axes.set_xlabel(below, **QUIET)


def _in_thousands(axes: Axes) -> None:
    """Few ticks, as 400 k or 4.8 T."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
