"""A comparison's files: one HTML page that needs no other; its numbers as Markdown, CSV, JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dograph.errors import UserError
from dograph.experiments.comparison import tables
from dograph.experiments.comparison.comparison import Comparison
from dograph.experiments.comparison.conditions import CONDITIONS, HOST, setting_of
from dograph.experiments.comparison.statistics import Verdict
from dograph.experiments.comparison.styles import method_styles
from dograph.files import atomic
from dograph.files.changes import flat
from dograph.files.run_dir import PAGE
from dograph.reports.pages import LINE_VARIABLES, inline_svg, page_environment

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


def check_writable(folder: Path, force: bool) -> None:
    """Raises UserError if a comparison is already in a folder, unless it may be replaced."""
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise UserError(f"{folder / there[0]} exists: name another folder, or add --force")


def write_files(comparison: Comparison, figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Writes ``FILES`` into a folder, made if it is not there; returns their paths."""
    writers = (tables.as_markdown, tables.as_csv, tables.as_json)
    texts = [as_page(comparison, figures, folder), *(write(comparison) for write in writers)]
    paths = [folder / name for name in FILES]
    try:
        contents = {path: text.encode() for path, text in zip(paths, texts, strict=True)}
        atomic.write_files(contents)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    return paths


def as_page(comparison: Comparison, figures: Mapping[str, Figure], folder: Path = Path()) -> str:
    """The HTML, figures in their order; names of domains and methods may contain anything.

    ``folder`` is where it will lie: links to the runs' own pages lead from there.
    """
    environment = page_environment("dograph.experiments.comparison")
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
        runs=[(run.folder, _link(run.stages[-1][1] / PAGE, folder)) for run in comparison.runs],
    )


def _link(page: Path, folder: Path) -> str | None:
    """The address of a run's page from a folder; None for a run without one."""
    if not page.is_file():
        return None
    return quote(Path(os.path.relpath(page.resolve(), folder.resolve())).as_posix())


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
