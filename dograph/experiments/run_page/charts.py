"""Charts of a run's page: a line for each domain, with its name and last value at the line's end.

Small ones, so that their letters stay legible where a narrow screen scales them down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dograph.mixers.target import Target
from dograph.reports.figures import appearance
from dograph.reports.figures.layout import Floats, spaced
from dograph.reports.history import MixtureHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, TALL, LINE = 5.4, 3.2, 0.155
"""Inches: a chart's size, and the room of a name; more than ``MOST`` names make it taller."""
MOST = 13
MEAN = "mean of all"
POINT_MARKS = 12
"""Points up to which each is marked."""
Series = Sequence[tuple[str, Floats, appearance.Style]]


def run_charts(history: MixtureHistory, target: Target) -> dict[str, Figure]:
    """By name: the charts for which a run has points."""
    names, charts = history.domains, dict[str, "Figure"]()
    if history.validations:
        charts["losses"] = _losses(history, target)
    if len(history.steps):
        for name, (title, meaning), values in (
            (
                "weights",
                ("Weights", "what is drawn by, or a proxy finds"),
                history.weights,
            ),
            ("realised", ("Realised shares", "what was drawn"), history.realised),
            ("effective", ("Effective weights", "share of the loss"), history.effective),
        ):
            shares = np.asarray(values, np.float64).reshape(-1, len(names))
            charts[name] = _chart(
                history.steps, _styled(names, shares), title, meaning, appearance.percent
            )
    return charts


def _styled(names: Sequence[str], values: Floats) -> list[tuple[str, Floats, appearance.Style]]:
    """One series for each column, in the domain's own style."""
    return [(name, values[:, i], appearance.style_of(i)) for i, name in enumerate(names)]


def _losses(history: MixtureHistory, target: Target) -> Figure:
    """Validation losses by domain, their mean, and the target's if that is another."""
    validations = history.validations
    names = list(validations[-1].losses)
    order = [*(name for name in history.domains if name in names)]
    order += [name for name in names if name not in order]
    losses = np.array([[each.losses.get(n, np.nan) for n in order] for each in validations])
    series = _styled(order, losses)
    ink = appearance.Style(appearance.TEXT_COLOUR, "o", "-", "")
    series.append((MEAN, losses.mean(axis=1), ink))
    if not target.is_even:
        aimed = np.array([target.loss(each.losses) for each in validations])
        series.append((f"target: {target.label}", aimed, replace(ink, line="--")))
    steps = [each.step for each in validations]
    return _chart(steps, series, "Validation loss", "nats a token", lambda loss: f"{loss:.3f}")


def _chart(
    steps: Sequence[int], series: Series, title: str, meaning: str, write: Callable[[float], str]
) -> Figure:
    tall = TALL + LINE * max(0, len(series) - MOST)
    figure = appearance.white_figure(WIDE, tall)
    axes = figure.add_axes((0.09, 0.42 / tall, 0.58, 1 - 0.92 / tall))
    appearance.quiet_axes(axes)
    appearance.title_panel(axes, title, meaning)
    for name, values, style in series:
        (line,) = axes.plot(steps, values, color=style.colour, linestyle=style.line)
        line.set(linewidth=2.8 if name == MEAN else 1.7, markersize=3.5)
        line.set_marker(style.marker if len(steps) <= POINT_MARKS and name != MEAN else "")
    if write is appearance.percent:
        highest = min(1.08 * max(float(np.nanmax(values)) for _, values, _ in series), 1.02) or 1.0
        axes.set_ylim(0, highest)
        appearance.label_percent(axes, highest)
    axes.margins(x=0.02)
    appearance.label_steps(axes)
    _name_ends(axes, series, write, tall)
    return figure


def _name_ends(axes: Axes, series: Series, write: Callable[[float], str], tall: float) -> None:
    """Writes names beside the ends of the lines, as near to them as keeps them apart."""
    from matplotlib.lines import Line2D

    low, high = axes.get_ylim()
    ends = np.array([float(values[-1]) for _, values, _ in series])
    places = np.clip((np.nan_to_num(ends, nan=high) - low) / (high - low), 0, 1)
    distance = LINE / (tall - 0.92)
    heights = spaced(places, distance)
    # All within the axes' height: of many ends at the bottom, the lowest names begin there.
    offsets = np.empty(len(heights))
    offsets[np.argsort(heights, kind="stable")] = distance * np.arange(len(heights))
    heights = np.clip(heights - offsets, 0.0, max(0.0, 1.0 - offsets.max())) + offsets
    for (name, _, style), end, place, height in zip(series, ends, places, heights, strict=True):
        stroke = Line2D([1.0, 1.04, 1.09], [place, height, height], color=style.colour)
        stroke.set(transform=axes.transAxes, linestyle=style.line, linewidth=1.1, clip_on=False)
        axes.add_line(stroke)
        text = f"{appearance.plain(name, 18)}  {write(end)}"
        axes.text(1.105, height, text, transform=axes.transAxes, va="center", **appearance.SMALL)
