"""A comparison as one HTML file that needs no other: tables, figures, provenance."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dograph.experiments.comparison.comparison import FEWEST_SEEDS, Comparison
from dograph.experiments.comparison.conditions import CONDITIONS, HOST
from dograph.experiments.comparison.settings import setting_of
from dograph.experiments.comparison.statistics import Verdict
from dograph.experiments.comparison.styles import method_styles
from dograph.experiments.comparison.tables import LEGEND, domain_rows, headings, summary_rows
from dograph.experiments.recipe.compose import flat
from dograph.reports.figures.appearance import QUIET_COLOUR, TEXT_COLOUR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "loss": "Validation loss over the tokens of the last stage, in the mean over seeds; beside it "
    "the end of each curve with its 95 % interval, in the legend's order. Differences are paired "
    "by seed: below zero is better than the baseline.",
    "domains": "Where the difference comes from. Columns are domains of the validation set.",
    "cost": "What all stages cost against the final mean loss; down and to the left is better.",
    "mixtures": "What counted, in the mean over seeds: a domain's share of the loss weight; for "
    "a method with stages, the domain weights that its proxy found.",
}
VERBS: dict[Verdict, str] = {
    "win": "better than",
    "tie": "not told apart from",
    "loss": "worse than",
}
SO_FAR: dict[Verdict, str] = {
    "win": "lower so far than",
    "tie": "not told apart so far from",
    "loss": "higher so far than",
}
"""Where fewer pairs are compared than a claim takes."""
LINE_VARIABLES = {"#333333": "black-line", "#882255": "wine-line", "#0072B2": "blue-line"}
VARIABLES = {TEXT_COLOUR: "ink", QUIET_COLOUR: "quiet", "#E6E6E6": "grid", **LINE_VARIABLES}
"""Colours that the page's style sheet gives another shade on a dark screen."""


def as_page(comparison: Comparison, figures: Mapping[str, Figure]) -> str:
    """The page's HTML; names of domains and methods may contain anything.

    Args:
        comparison: the comparison to show.
        figures: by name, in the order in which they are shown.
    """
    environment = Environment(
        loader=PackageLoader("dograph.experiments.comparison", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        comparison=comparison,
        headline=headline(comparison),
        headings=headings(comparison),
        rows=_rows(comparison),
        domain_rows=domain_rows(comparison),
        legend=LEGEND,
        figures=[
            (name, inline_svg(figure, name), CAPTIONS.get(name, ""))
            for name, figure in figures.items()
        ],
        provenance=provenance(comparison),
    )


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Cells, colour and verdict of each method."""
    styles = method_styles(method.name for method in comparison.methods)
    colours = {name: style.colour for name, style in styles.items()}
    shades = {colour: f"var(--{name})" for colour, name in LINE_VARIABLES.items()}
    return [
        {
            "cells": cells,
            "colour": shades.get(colours[method.name], colours[method.name]),
            "verdict": method.paired.verdict if method.paired else "",
        }
        for method, cells in zip(comparison.methods, summary_rows(comparison), strict=True)
    ]


def headline(comparison: Comparison) -> str:
    """The answer in one sentence; directions only if a method has too few pairs for a claim."""
    base = comparison.baseline.label
    pairs = [len(method.paired.mean.values) for method in comparison.methods if method.paired]
    verbs = SO_FAR if min(pairs, default=0) < FEWEST_SEEDS else VERBS
    groups: dict[str, list[str]] = {verb: [] for verb in verbs.values()}
    for method in comparison.methods[1:]:
        if method.paired is None:
            groups.setdefault("not paired with", []).append(method.label)
        else:
            groups[verbs[method.paired.verdict]].append(method.label)
    text = "; ".join(
        f"{verb} {base}: {', '.join(labels)}" for verb, labels in groups.items() if labels
    )
    return f"{text[0].upper()}{text[1:]}." if text else f"{base} alone: nothing to compare with."


def provenance(comparison: Comparison) -> list[tuple[str, str]]:
    """The runs' conditions, commit, versions and host, as (name, every value there is)."""
    settings = [setting_of(run) for run in comparison.runs]
    named: dict[str, list[Any]] = {
        title: [setting[name] for setting in settings] for name, title in CONDITIONS.items()
    }
    named |= {name: [run.metadata.get(name) for run in comparison.runs] for name in HOST}
    return [
        (name, " · ".join(dict.fromkeys(map(_listed, values))) or "not known")
        for name, values in named.items()
    ]


def _listed(value: Any) -> str:
    """A value as text; of nested ones, every key that is set."""
    if isinstance(value, Mapping):
        known = {key: inner for key, inner in flat(value).items() if inner not in ([], None)}
        return ", ".join(f"{key.rpartition('.')[2]} {inner}" for key, inner in known.items())
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) if value else "not known"


def inline_svg(figure: Figure, name: str) -> Markup:
    """A figure as SVG for a page of either theme: no background, ink by the page's variables.

    Args:
        figure: the figure to show.
        name: prefix of its ids, which another figure would have too.
    """
    import matplotlib

    file = io.StringIO()
    # Text stays text, for search and screen readers; ids come from the content alone.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dograph"}):
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = file.getvalue()
    text = re.sub("<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text, count=1)
    text = re.sub(r"<[a-z][^>]*>", lambda tag: _for_page(tag[0], name), text)
    return Markup(text)  # noqa: S704  (matplotlib has escaped the names)


def _for_page(tag: str, name: str) -> str:
    """A tag with the page's colours and the figure's ids; text between tags stays as it is."""
    for colour, variable in VARIABLES.items():
        tag = re.sub(re.escape(colour), f"var(--{variable})", tag, flags=re.IGNORECASE)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
