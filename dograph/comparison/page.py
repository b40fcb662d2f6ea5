"""A comparison as one HTML file that needs no other: tables, figures, where it came from."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dograph.comparison.comparison import Comparison
from dograph.comparison.looks import method_styles
from dograph.comparison.settings import setting_of
from dograph.comparison.tables import LEGEND, domain_rows, headings, summary_rows
from dograph.report.figures.appearance import QUIET_COLOUR, TEXT_COLOUR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "loss": "Validation loss over the tokens of the last stage; bands are 95 % intervals over "
    "seeds. Differences are paired by seed: below zero is better than the baseline.",
    "domains": "Where the difference comes from. Columns are domains of the validation set.",
    "cost": "What all stages cost against the final mean loss; down and to the left is better.",
    "mixtures": "What counted, in the mean over seeds: a domain's share of the loss weight; for "
    "a method with stages, the domain weights that its proxy found.",
}
VERBS = (("win", "better than"), ("tie", "not told apart from"), ("loss", "worse than"))
# Colours that the page's style sheet gives another shade on a dark screen.
VARIABLES = {
    TEXT_COLOUR: "ink",
    QUIET_COLOUR: "quiet",
    "#E6E6E6": "grid",
    "#333333": "black-line",
    "#882255": "wine-line",
    "#0072B2": "blue-line",
}


def as_page(comparison: Comparison, figures: Mapping[str, Figure]) -> str:
    """The page's HTML; domain and method names are shown, whatever is in them.

    Args:
        comparison: what to show.
        figures: by name, in the order in which they are shown.
    """
    environment = Environment(
        loader=PackageLoader("dograph.comparison", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    looks = method_styles([method.label for method in comparison.methods])
    names = ("black-line", "wine-line", "blue-line")
    known = {colour: f"var(--{name})" for colour, name in VARIABLES.items() if name in names}
    rows = [
        {
            "cells": cells,
            "colour": known.get(looks[method.label].colour, looks[method.label].colour),
            "verdict": method.paired.verdict if method.paired else "",
        }
        for method, cells in zip(comparison.methods, summary_rows(comparison), strict=True)
    ]
    return environment.get_template("page.html").render(
        comparison=comparison,
        headline=headline(comparison),
        headings=headings(comparison),
        rows=rows,
        domain_rows=domain_rows(comparison),
        legend=LEGEND,
        figures=[
            (name, inline_svg(figure), CAPTIONS.get(name, "")) for name, figure in figures.items()
        ],
        origin=origin(comparison),
        runs=[run for method in comparison.methods for run in method.runs],
    )


def headline(comparison: Comparison) -> str:
    """The answer in one sentence."""
    base = comparison.baseline.label
    groups: dict[str, list[str]] = {"win": [], "tie": [], "loss": []}
    for method in comparison.methods[1:]:
        if method.paired is not None:
            groups[method.paired.verdict].append(method.label)
    parts = [
        f"{verb} {base}: {', '.join(groups[verdict])}"
        for verdict, verb in (
            ("win", "better than"),
            ("tie", "not told apart from"),
            ("loss", "worse than"),
        )
        if groups[verdict]
    ]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else f"{base} alone: nothing to compare with."


def origin(comparison: Comparison) -> list[tuple[str, str]]:
    """What all runs share, and what differs among hosts and versions, as (name, value)."""
    runs = [run for method in comparison.methods for run in method.runs]
    facts = [run.facts for run in runs]
    setting = setting_of(comparison.baseline.runs[0])
    model = setting["model"]
    config = _listed(model["model.config"])
    validation = _listed(setting["validation"])
    shown = [
        ("model", f"{model['model.architecture']}: {config}"),
        ("tokens of the last stage", f"{setting['tokens']:,}"),
        ("validation", validation),
        ("corpus fingerprint", setting["corpus"]),
        ("tokenizer", setting["tokenizer"]),
    ]
    for name, values in (
        ("commit", [fact.get("commit") for fact in facts]),
        ("versions", [_listed(fact.get("versions")) for fact in facts]),
        ("host", [_listed(fact.get("host")) for fact in facts]),
    ):
        distinct = dict.fromkeys(str(value) for value in values if value)
        shown.append((name, " · ".join(distinct) or "not known"))
    return shown


def _listed(values: Any) -> str:
    return ", ".join(
        f"{key} {value}" for key, value in (values or {}).items() if value not in ([], None)
    )


def inline_svg(figure: Figure) -> Markup:
    """A figure as SVG for a page of either theme: no background, ink by the page's variables."""
    import matplotlib

    file = io.StringIO()
    # Text stays text, to be found and read out; ids come from the content alone.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dograph"}):
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = re.sub(re.escape(colour), f"var(--{variable})", text, flags=re.IGNORECASE)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text, count=1)
    return Markup(text)  # noqa: S704  (matplotlib has escaped the names)
