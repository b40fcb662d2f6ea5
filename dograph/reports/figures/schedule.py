"""How a schedule came to its weights: clusters over time, sources in clusters, terms, scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dograph.reports.figures import appearance
from dograph.reports.figures.appearance import SMALL, TEXT_COLOUR, percent, style_of, title_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dograph.mixers.snapshot import ScheduleSnapshot, ScheduleUpdate


def schedule_figure(schedule: ScheduleSnapshot) -> Figure:
    """Four panels of a schedule's updates."""
    updates = schedule.updates
    tall = 8.4 + 0.16 * max(0, len(updates[-1].numbers) - 11)
    figure = appearance.white_figure(12.8, tall)
    panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.9, top=0.93, bottom=0.08, wspace=0.42, hspace=0.38)
    _draw_clusters(panels[0, 0], updates)
    _draw_contingency(panels[0, 1], updates[-1], schedule.sources)
    _draw_terms(panels[1, 0], updates)
    _draw_scalars(panels[1, 1], updates)
    return figure


def _over_time(axes: Axes, steps: Sequence[int]) -> None:
    appearance.quiet_axes(axes)
    appearance.label_steps(axes)
    axes.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)


def _stacked(axes: Axes, steps: Sequence[int], layers: Mapping[str, Sequence[float]]) -> None:
    """Areas on top of each other, each with its name at the right end."""
    styles = [style_of(index, appearance.CLUSTER_COLOURS) for index in range(len(layers))]
    values = np.array(list(layers.values()), dtype=np.float64)
    times: Sequence[float] = steps
    if len(steps) == 1:  # an area needs two ends
        times, values = [steps[0] - 0.5, steps[0] + 0.5], np.repeat(values, 2, axis=1)
    areas = axes.stackplot(times, values, colors=[style.colour for style in styles], alpha=0.85)
    for area, style in zip(areas, styles, strict=True):
        area.set(hatch=style.hatch, edgecolor="white", linewidth=0.6)
    axes.set_ylim(0, max(float(values.sum(axis=0).max()), 1e-9))
    middles = values[:, -1].cumsum() - values[:, -1] / 2
    top = axes.get_ylim()[1]
    last = -1.0
    for name, height, share in zip(layers, middles / top, values[:, -1], strict=True):
        if share <= 0:
            continue
        last = max(float(height), last + 0.042)
        text = f"{name}  {percent(float(share))}"
        axes.text(1.02, last, text, transform=axes.transAxes, va="center", **SMALL)


def _draw_clusters(axes: Axes, updates: Sequence[ScheduleUpdate]) -> None:
    numbers = sorted({number for update in updates for number in update.numbers})
    shares = [dict(zip(update.numbers, update.clusters, strict=True)) for update in updates]
    layers = {str(number): [of.get(number, 0.0) for of in shares] for number in numbers}
    steps = [update.step for update in updates]
    _over_time(axes, steps)
    _stacked(axes, steps, layers)
    title_panel(axes, "Cluster shares", "w = P α, by the clusters' numbers")


def _draw_contingency(axes: Axes, last: ScheduleUpdate, names: Sequence[str]) -> None:
    table = np.array(last.contingency, dtype=np.float64)
    axes.imshow(table, cmap="Blues", vmin=0, vmax=max(float(table.max()), 1e-9), aspect="auto")
    axes.set_xticks(range(len(names)), [appearance.plain(name, 16) for name in names])
    axes.tick_params(axis="x", labelrotation=35, labelsize=8, length=0)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.set_yticks(range(len(table)), [str(number) for number in last.numbers])
    axes.tick_params(axis="y", labelsize=8, length=0)
    if table.size <= 200:
        for row, column in np.ndindex(*table.shape):
            share = float(table[row, column])
            ink = "white" if share > 0.6 * table.max() else TEXT_COLOUR
            number = axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center")
            number.set(fontsize=7, color=ink)
    title_panel(axes, "Clusters in sources", f"P[c|s] in percent, step {last.step}")


def _draw_terms(axes: Axes, updates: Sequence[ScheduleUpdate]) -> None:
    names = list(dict.fromkeys(name for update in updates for name in update.terms))
    sizes = np.array([[abs(update.terms.get(name, 0.0)) for name in names] for update in updates])
    shares = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-30)
    steps = [update.step for update in updates]
    _over_time(axes, steps)
    _stacked(axes, steps, dict(zip(names, shares.T.tolist(), strict=True)))
    appearance.label_percent(axes, 1.0)
    title_panel(axes, "The objective's terms", "share of their absolute values")


def _draw_scalars(axes: Axes, updates: Sequence[ScheduleUpdate]) -> None:
    steps = [update.step for update in updates]
    _over_time(axes, steps)
    for index, name in enumerate(updates[-1].scalars):
        values = [update.scalars[name] for update in updates]
        style = style_of(index)
        axes.plot(steps, values, color=style.colour, marker=style.marker, markersize=4, label=name)
    if any(value > 0 for update in updates for value in update.scalars.values()):
        axes.set_yscale("log")
    axes.tick_params(which="both", labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    title_panel(axes, "Scalars", "κ, λ, μ; they move where adapt is true")
