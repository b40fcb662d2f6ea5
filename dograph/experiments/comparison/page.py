"""A comparison's files: one HTML page that needs no other; its numbers as Markdown, CSV, JSON."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dograph.errors import UserError
from dograph.experiments.comparison import tables
from dograph.experiments.comparison.comparison import Comparison
from dograph.experiments.comparison.conditions import CONDITIONS, HOST, setting_of
from dograph.experiments.comparison.statistics import Verdict
from dograph.experiments.comparison.styles import method_styles
from dograph.files import atomic
from dograph.files.changes import flat
from dograph.reports.figures.appearance import QUIET_COLOUR, TEXT_COLOUR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("report.html", "comparison.md", "comparison.csv", "comparison.json")
CAPTIONS = {
    "loss": "Validation loss over the tokens of the last stage, in the mean over seeds; beside it "
    "the end of each curve with its 95 % interval, in the legend's order. Differences are paired "
    "by seed: below zero is better than the baseline.",
    "domains": "Where the difference comes from. Columns are domains of the validation set, then "
    "the target, mean and worst over all domains.",
    "cost": "What all stages cost against the target's final loss; down and to the left is better.",
    "mixtures": "What counted, in the mean over seeds: a domain's share of the loss weight; for "
    "a method with stages, the domain weights that its proxy found.",
}
VERBS: dict[Verdict, str] = {
    "win": "better than",
    "ahead": "lower so far than",
    "tie": "not told apart from",
    "behind": "higher so far than",
    "loss": "worse than",
}
LINE_VARIABLES = {"#333333": "black-line", "#882255": "wine-line", "#0072B2": "blue-line"}
VARIABLES = {TEXT_COLOUR: "ink", QUIET_COLOUR: "quiet", "#E6E6E6": "grid", **LINE_VARIABLES}
"""Colours that the page's style sheet gives another shade on a dark screen."""


def check_writable(folder: Path, force: bool) -> None:
    """Raises UserError if a comparison is already in a folder, unless it may be replaced."""
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise UserError(f"{folder / there[0]} exists: name another folder, or add --force")


def write_files(comparison: Comparison, figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Writes ``FILES`` into a folder, made if it is not there; returns their paths."""
    writers = (tables.as_markdown, tables.as_csv, tables.as_json)
    texts = [as_page(comparison, figures), *(write(comparison) for write in writers)]
    paths = [folder / name for name in FILES]
    try:
        contents = {path: text.encode() for path, text in zip(paths, texts, strict=True)}
        atomic.write_files(contents)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    return paths


def as_page(comparison: Comparison, figures: Mapping[str, Figure]) -> str:
    """The HTML, figures in their order; names of domains and methods may contain anything."""
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
        headings=tables.headings(comparison),
        rows=_rows(comparison),
        domain_rows=tables.domain_rows(comparison),
        legend=tables.legend(comparison),
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
        for method, cells in zip(comparison.methods, tables.summary_rows(comparison), strict=True)
    ]


def headline(comparison: Comparison) -> str:
    """The answer in one sentence; of methods with too few pairs for a claim only directions."""
    base = comparison.baseline.label
    groups: dict[str, list[str]] = {verb: [] for verb in (*VERBS.values(), "not paired with")}
    for method in comparison.methods[1:]:
        verb = VERBS[method.paired.verdict] if method.paired else "not paired with"
        groups[verb].append(method.label)
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

    The name is the prefix of its ids, which another figure would have too.
    """
    import matplotlib

    file = io.StringIO()
    # Text stays text, for search and screen readers; ids come from the content alone.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dograph"}):
        nobody = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", transparent=True, metadata=nobody)
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
