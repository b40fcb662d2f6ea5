"""Trajectories of the mixture: weights, realised shares, effective shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dograph.reports.figures import appearance
from dograph.reports.figures.appearance import style_of
from dograph.reports.figures.layout import Floats, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHED_FROM = 20
DASH = 4.0
LIVE = ("Sampling weights", "what is drawn by")
PROXY = ("Domain weights", "what the proxy finds")
TITLES = (("Realised shares", "what was drawn"), ("Effective weights", "share of the loss"))


def weight_trajectories_figure(
    steps: Sequence[int],
    weights: npt.ArrayLike,
    realised: npt.ArrayLike,
    effective: npt.ArrayLike,
    names: Sequence[str],
    live: bool = True,
) -> Figure:
    """Three panels on one scale; one colour and line per domain throughout.

    Args:
        steps: t optimiser steps.
        weights: (t, S) weights that the sampler drew by, or that a proxy found.
        realised: (t, S) shares of the sequences drawn since the point before.
        effective: (t, S) shares of the loss weight since the point before.
        names: the S domains, written at the ends of the last panel's lines.
        live: whether the weights are the sampler's.
    """
    figure = appearance.white_figure(12.8, 4.2 + 0.21 * max(0, len(names) - 14))
    panels = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(left=0.05, right=0.81, top=0.86, bottom=0.12, wspace=0.07)
    points = [np.asarray(values, np.float64) for values in (weights, realised, effective)]
    points = [values.reshape(len(steps), len(names)) for values in points]
    # Weights are exact; the other shares scatter and are smoothed.
    lines = [points[0], _middle(points[1]), _middle(points[2])]
    highest = _highest(points, lines)
    titles = (LIVE if live else PROXY, *TITLES)
    for axes, title, values, middle in zip(panels, titles, points, lines, strict=True):
        _draw_lines(axes, np.asarray(steps), values, middle)
        _dress(axes, *title, steps, highest)
    if len(steps):
        _label_ends(panels[-1], lines[-1][-1], names, highest)
    return figure


def _middle(values: Floats) -> Floats:
    """(t, S) running means, or the values themselves where they are few or never move."""
    if len(values) < SMOOTHED_FROM or not np.diff(values, axis=0).any():
        return values
    return smoothed(values, max(5, len(values) // 12))


def _highest(points: Sequence[Floats], lines: Sequence[Floats]) -> float:
    """Where the axis ends: above every line, and above all but rare single points."""
    if not points[0].size:
        return 1.0
    line = max(float(values.max()) for values in lines)
    usual = max(float(np.quantile(values.max(axis=1), 0.97)) for values in points)
    return min(1.08 * max(line, usual), 1.02) or 1.0


def smoothed(values: Floats, width: int) -> Floats:
    """(t, S) running means over at most ``width`` points around each; sums stay 1."""
    half = width // 2
    total = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)[:, None]


def _draw_lines(axes: Axes, steps: npt.NDArray[np.int64], values: Floats, middle: Floats) -> None:
    """Draws a line for every domain, and faintly behind it the points it smooths."""
    for index in range(values.shape[1]):
        style = style_of(index)
        if middle is not values:
            axes.plot(steps, values[:, index], color=style.colour, linewidth=0.7, alpha=0.28)
        same = np.flatnonzero(np.isclose(middle, middle[:, [index]], atol=1e-6).all(axis=0))
        turn = int(np.searchsorted(same, index))
        # Dashes of several lines on the same place, so that each shows in turn.
        dashes = (-DASH * turn, (DASH, DASH * (len(same) - 1)))
        (line,) = axes.plot(steps, middle[:, index], color=style.colour, linewidth=1.9)
        line.set_linestyle(style.line if len(same) < 2 else dashes)
        line.set(marker=style.marker if len(steps) < 3 else "", markersize=5)


def _dress(axes: Axes, title: str, meaning: str, steps: Sequence[int], highest: float) -> None:
    appearance.quiet_axes(axes)
    appearance.title_panel(axes, title, meaning)
    axes.set_ylim(0, highest)
    axes.margins(x=0.01)
    if len(steps) == 1:
        axes.set_xlim(steps[0] - 2, steps[0] + 2)
    appearance.label_percent(axes, highest)
    appearance.label_steps(axes)


def _label_ends(axes: Axes, ends: Floats, names: Sequence[str], top: float) -> None:
    """Writes each domain's name beside the end of its line, joined to it by a thin stroke."""
    from matplotlib.lines import Line2D

    tall = axes.figure.get_figure(root=True).get_size_inches()[1] * 0.74
    heights = spaced(ends / top, 0.165 / tall)
    heights = heights - max(0.0, heights.max() - 1.0)
    heights = heights + max(0.0, 0.01 - heights.min())
    for index, name in enumerate(names):
        style, height = style_of(index), float(heights[index])
        stroke = Line2D([1.0, 1.05, 1.12], [float(ends[index]) / top, height, height])
        stroke.set(transform=axes.transAxes, color=style.colour, linestyle=style.line)
        stroke.set(linewidth=1.2, clip_on=False)
        axes.add_line(stroke)
        text = f"{appearance.plain(name, 20)}  {appearance.percent(float(ends[index]))}"
        axes.text(1.135, height, text, transform=axes.transAxes, va="center", **appearance.SMALL)
