"""How a schedule came to its weights: weights and influences over time, and the terms."""

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
    updates, names = schedule.updates, schedule.sources
    figure = appearance.white_figure(12.8, 8.4 + 0.16 * max(0, len(names) - 11))
    panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.12, right=0.86, top=0.93, bottom=0.08, wspace=0.62, hspace=0.34)
    _draw_weights(panels[0, 0], updates, names)
    _draw_influence(panels[0, 1], updates, names, schedule.target)
    _draw_terms(panels[1, 0], updates)
    _draw_last(panels[1, 1], updates[-1], names)
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


def _draw_weights(axes: Axes, updates: Sequence[ScheduleUpdate], names: Sequence[str]) -> None:
    steps = [update.step for update in updates]
    _over_time(axes, steps)
    rows = zip(*(update.weights for update in updates), strict=True)
    layers = {appearance.plain(name, 16): row for name, row in zip(names, rows, strict=True)}
    _stacked(axes, steps, layers)
    title_panel(axes, "Drawn", "α of every source")


def _draw_influence(
    axes: Axes, updates: Sequence[ScheduleUpdate], names: Sequence[str], target: str
) -> None:
    steps = [update.step for update in updates]
    _over_time(axes, steps)
    values = np.array([update.influence for update in updates])
    errors = np.array([update.error for update in updates])
    for index, name in enumerate(names):
        style, middle, error = style_of(index), values[:, index], errors[:, index]
        label = appearance.plain(name, 16)
        axes.fill_between(steps, middle - error, middle + error, color=style.colour, alpha=0.12)
        axes.plot(steps, middle, color=style.colour, marker=style.marker, markersize=3, label=label)
    axes.axhline(0, color=TEXT_COLOUR, linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    title_panel(axes, "Influence", f"on {appearance.plain(target, 40)}, ± standard error")


def _draw_terms(axes: Axes, updates: Sequence[ScheduleUpdate]) -> None:
    names = list(dict.fromkeys(name for update in updates for name in update.terms))
    sizes = np.array([[abs(update.terms.get(name, 0.0)) for name in names] for update in updates])
    shares = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-30)
    steps = [update.step for update in updates]
    _over_time(axes, steps)
    if names:  # none where every solve has failed
        _stacked(axes, steps, dict(zip(names, shares.T.tolist(), strict=True)))
    appearance.label_percent(axes, 1.0)
    title_panel(axes, "The objective's terms", "share of their absolute values")


def _draw_last(axes: Axes, last: ScheduleUpdate, names: Sequence[str]) -> None:
    appearance.quiet_axes(axes)
    order = np.argsort(last.influence)
    places = np.arange(len(names))
    middle, error = (np.array(each)[order] for each in (last.influence, last.error))
    colours = [style_of(int(index)).colour for index in order]
    axes.barh(places, middle, xerr=error, color=colours, alpha=0.85, error_kw={"elinewidth": 1})
    axes.set_yticks(places, [appearance.plain(names[index], 16) for index in order])
    axes.tick_params(labelsize=8, length=0)
    edge = float(np.max(middle + error))
    for place, index in enumerate(order):
        axes.text(1.02, place, percent(last.weights[index]), va="center", **SMALL)
        axes.texts[-1].set_transform(axes.get_yaxis_transform())
    axes.set_xlim(right=max(edge, 0.0) * 1.05 + 1e-9)
    title_panel(axes, "The last update", f"step {last.step}: influence, and what is drawn for it")
