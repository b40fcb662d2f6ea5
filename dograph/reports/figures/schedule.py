"""How a schedule came to its weights: influences, what is drawn, and the terms that decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dograph.reports.figures import appearance
from dograph.reports.figures.appearance import QUIET, SMALL, TEXT_COLOUR, Style, percent, style_of
from dograph.reports.finding import target_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate

Floats = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]
WIDE, ROW, OVER_TIME, LINE_TALL = 12.8, 0.27, 2.5, 0.2
"""Inches: the figure's width, a source's row, a panel over time, a line of text."""
LINE = 136
"""Characters in a line of text."""
ACROSS = ((0.17, 0.27), (0.485, 0.16), (0.685, 0.30))
"""Left edge and width of the panels that share sources' rows."""
BANDS = 5
"""Sources whose errors are drawn over time: those of the largest influence."""
MOVED = 0.01
"""A schedule whose weights moved less since its first update is not drawn over time."""
LEAST_PUSH = 0.01
"""Half of the least width of the pushes' panel: smaller ones, such as rounding, are drawn small."""
PUSHES = {"influence": "#0072B2", "curvature": "#D55E00", "prior": "#9A9A9A"}
"""Terms of the objective whose gradients are drawn, and their colours."""


def schedule_figure(mixer: MixerSnapshot, step: int, sentence: str | None = None) -> Figure:
    """Draws each source's influence, weight, and the terms' pushes at the last update.

    Where weights changed between updates, influence and weights over time come below.

    Args:
        mixer: with a schedule, and the graph of its m sources.
        step: optimiser steps done.
        sentence: written above.
    """
    schedule, graph = mixer.schedule, mixer.graph
    assert schedule is not None and graph is not None
    last, prior = schedule.updates[-1], np.array(schedule.prior_weights)
    numbers = range(len(prior)) if mixer.graph_domain is None else mixer.graph_domain.tolist()
    styles = [style_of(number) for number in numbers]
    moved = np.ptp([update.weights for update in schedule.updates], axis=0).max() > MOVED
    text = fill(sentence or f"Schedule for {target_name(schedule.target)}", LINE)
    head = 0.75 + LINE_TALL * (1 + text.count("\n"))
    rows, below = max(ROW * len(prior), 1.2), OVER_TIME + 1.15 if moved else 0.0
    tall = head + rows + 0.7 + below
    figure = appearance.white_figure(WIDE, tall)
    look: dict[str, Any] = {"fontsize": 10.5, "color": TEXT_COLOUR, "weight": "bold", "va": "top"}
    figure.text(0.01, 1 - 0.1 / tall, text.replace("$", r"\$"), **look)

    height, bottom = rows / tall, (below + 0.7) / tall
    panels = [figure.add_axes((x, bottom, wide, height)) for x, wide in ACROSS]
    order = np.argsort(last.influence, kind="stable")
    _draw_influence(panels[0], schedule, styles, order)
    _draw_weights(panels[1], last, prior, styles, order)
    _draw_pushes(panels[2], pushes(last, prior, graph.kernel.detach().cpu().numpy()), order)
    for axes in panels:
        axes.set_ylim(-0.6, len(order) - 0.4)
    if moved:
        height, bottom = OVER_TIME / tall, 0.5 / tall
        panels = [figure.add_axes((x, bottom, 0.43, height)) for x in (0.05, 0.555)]
        _draw_influence_over_time(panels[0], schedule.updates, styles)
        _draw_weights_over_time(panels[1], schedule.updates, prior, styles, step)
    return figure


def pushes(update: ScheduleUpdate, prior: Floats, kernel: Floats) -> dict[str, Floats]:
    """(m,) how each term pushes each weight at an update's solution, by the term's name.

    It is the term's negative gradient. A quadratic term's value v gives its gradient's size, as
    ``⟨α − α_0, ∇v⟩ = 2v``. The domains' graph, off by default, is left out.
    """
    influence, terms = np.array(update.influence), update.terms
    weights = np.array(update.weights)
    moved = weights - prior
    quadratic = {
        name: -2 * terms.get(name, 0.0) * direction / max(float(moved @ direction), 1e-12)
        for name, direction in (("curvature", kernel @ moved), ("prior", moved / prior))
    }
    return {"influence": influence, **quadratic}


def _dress(axes: Axes, title: str, meaning: str) -> None:
    """A panel with a row for each source; names stand left of the first one only."""
    appearance.quiet_axes(axes)
    appearance.title_panel(axes, title, meaning)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=0.7, zorder=1)


def _draw_influence(
    axes: Axes, schedule: ScheduleSnapshot, styles: Sequence[Style], order: Order
) -> None:
    last = schedule.updates[-1]
    target = appearance.plain(target_name(schedule.target), 32)
    _dress(axes, f"Influence on {target}", f"± standard error · step {last.step}")
    for place, index in enumerate(order):
        colour, marker = styles[index].colour, styles[index].marker
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 6}
        look |= {"linestyle": "", "capsize": 3, "elinewidth": 1.4}
        axes.errorbar(last.influence[index], place, xerr=last.error[index], **look)
    names = [appearance.plain(schedule.sources[index]) for index in order]
    axes.set_yticks(range(len(order)), names)
    axes.tick_params(axis="y", labelleft=True, labelcolor=TEXT_COLOUR)
    axes.margins(x=0.08)


def _draw_weights(
    axes: Axes, last: ScheduleUpdate, prior: Floats, styles: Sequence[Style], order: Order
) -> None:
    _dress(axes, "Drawn", "α · stroke: prior")
    for place, index in enumerate(order):
        style, weight = styles[index], last.weights[index]
        axes.barh(place, weight, 0.66, color=style.colour, hatch=style.hatch, edgecolor="white")
        axes.plot(
            [prior[index]] * 2, [place - 0.42, place + 0.42], color=TEXT_COLOUR, linewidth=1.4
        )
        beside = max(weight, prior[index])
        offset: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points"}
        axes.annotate(percent(weight), (beside, place), va="center", **offset, **SMALL)
    highest = max(*last.weights, *prior)
    axes.set_xlim(0, 1.3 * highest)
    axes.set_yticks(range(len(order)), [""] * len(order))
    axes.locator_params(axis="x", nbins=4)
    appearance.label_percent(axes, highest, across=True)


def _draw_pushes(axes: Axes, by_term: Mapping[str, Floats], order: Order) -> None:
    _dress(axes, "Why", "pushes of the terms at the solution · diamond: their sum")
    positions = np.arange(len(order))
    right = left = np.zeros(len(order))
    for name, values in by_term.items():
        ordered = values[order]
        starts = np.where(ordered > 0, right, left)
        axes.barh(positions, ordered, 0.66, left=starts, color=PUSHES[name], label=name)
        right, left = right + ordered.clip(min=0), left + ordered.clip(max=0)
    sums = np.sum(list(by_term.values()), axis=0)[order]
    axes.axvline(sums.max(), color=TEXT_COLOUR, linewidth=0.8, linestyle=":")
    look: dict[str, Any] = {"marker": "D", "markersize": 4.5, "markeredgecolor": "white"}
    axes.plot(sums, positions, linestyle="", color=TEXT_COLOUR, **look)
    axes.set_yticks(positions, [""] * len(order))
    axes.margins(x=0.05)
    if max(map(abs, axes.get_xlim())) < LEAST_PUSH:  # nothing pushes: rounding is no push
        axes.set_xlim(-LEAST_PUSH, LEAST_PUSH)
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.01, 1.0), "ncols": 3}
    look = {"frameon": False, "fontsize": 8, "handlelength": 1.0, "columnspacing": 1.0}
    look["borderaxespad"] = 1.6  # above the panel's meaning, in units of the font's size
    axes.legend(**place, **look, labelcolor=TEXT_COLOUR)
    text = "a weight moves until its sum is on the dotted line;\nleft of it, it is at its floor"
    axes.set_xlabel(text, **QUIET)


def _draw_influence_over_time(
    axes: Axes, updates: Sequence[ScheduleUpdate], styles: Sequence[Style]
) -> None:
    appearance.quiet_axes(axes)
    appearance.title_panel(axes, "Influence over time", "± standard error")
    appearance.label_steps(axes)
    steps = [update.step for update in updates]
    values = np.array([update.influence for update in updates]).T
    errors = np.array([update.error for update in updates]).T
    banded = np.argsort(-values.max(axis=1))[:BANDS]
    for index, (style, middle, error) in enumerate(zip(styles, values, errors, strict=True)):
        if index in banded:
            axes.fill_between(steps, middle - error, middle + error, color=style.colour, alpha=0.13)
        look: dict[str, Any] = {"color": style.colour, "linestyle": style.line, "markersize": 4}
        axes.plot(steps, middle, marker=style.marker, markevery=max(1, len(steps) // 8), **look)
    axes.axhline(0, color=TEXT_COLOUR, linewidth=0.7)


def _draw_weights_over_time(
    axes: Axes,
    updates: Sequence[ScheduleUpdate],
    prior: Floats,
    styles: Sequence[Style],
    step: int,
) -> None:
    """Areas on top of each other, which change where an update changed what is drawn."""
    appearance.quiet_axes(axes)
    appearance.title_panel(axes, "Drawn over time", "α, from the prior on · colours as above")
    appearance.label_steps(axes)
    weights = np.array([prior, *(update.weights for update in updates), updates[-1].weights]).T
    steps = [0, *(update.step for update in updates), max(step, updates[-1].step + 1)]
    colours = [style.colour for style in styles]
    areas = axes.stackplot(steps, weights, colors=colours, alpha=0.9, step="post")
    for area, style in zip(areas, styles, strict=True):
        area.set(hatch=style.hatch, edgecolor="white", linewidth=0.4)
    axes.set(xlim=(0, steps[-1]), ylim=(0, 1))
    appearance.label_percent(axes, 1.0)
