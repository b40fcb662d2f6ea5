"""The page of one run, made from the files in its folder: a run that trains has one, too."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import dograph.mixers
from dograph.errors import UserError
from dograph.experiments.provenance import latest_recipe, read_provenance
from dograph.experiments.run_page.charts import run_charts
from dograph.files.atomic import write_text
from dograph.files.changes import flat
from dograph.files.run_dir import FIGURES, HISTORY, PAGE, PROVENANCE, SUMMARY
from dograph.files.strict_json import read_regular
from dograph.mixers.target import Target
from dograph.reports.finding import what_limits_cost
from dograph.reports.history import MixtureHistory
from dograph.reports.pages import inline_png, inline_svg, page_environment
from dograph.reports.summary import RunSummary, read_summary

PICTURES = {
    "schedule": "Why the schedule draws this: each source's influence on the target, what is drawn "
    "beside the prior (the stroke), and how each term of the objective pushes.",
    "domain_graph_*": "The last domain graph. Nodes are sized by weight; of clusters of gradients, "
    "the slices are human domains.",
    "gradient_directions_early_and_late": "Directions of the sequences' gradients, early and late.",
}
"""Names of the pictures that the page shows, the last by name, and what they show."""
HEADINGS = ("domain", "drawn", "effective", "tokens", "epochs", "weight", "first", "last loss")
EVEN = 0.01
"""Difference of shares below which domains are drawn alike."""
SECTIONS = ("target", "limits", "model", "data", "sketch", "corpus", "trainer")


def write_page(folder: Path) -> Path:
    """Write ``report.html`` into a run's folder, whole or not at all; return its path.

    Raises:
        UserError: if it is no run's folder, or a file of it is damaged.
    """
    path = folder / PAGE
    write_text(path, as_page(folder))
    return path


def as_page(folder: Path) -> str:
    """The page's HTML; names and paths in the run's files may contain anything."""
    provenance = read_provenance(folder)
    recipe = latest_recipe(folder, provenance)
    history = MixtureHistory.read(folder) if (folder / HISTORY).exists() else MixtureHistory()
    summary = read_summary(folder) if (folder / SUMMARY).exists() else None
    target = Target.parse(recipe.get("target"))
    charts = run_charts(history, target)
    return (
        page_environment(__package__)
        .get_template("page.html")
        .render(
            name=f"{recipe.get('name')}, seed {recipe.get('seed', 0)}",
            state=_state(summary, history, recipe),
            is_finished=summary is not None,
            answer=_answer(summary, history),
            limits_cost=what_limits_cost(summary.prices) if summary else None,
            headings=HEADINGS,
            rows=list(_rows(summary, history)),
            charts=[(name, inline_svg(figure, name)) for name, figure in charts.items()],
            pictures=[*_pictures(folder)],
            cost=_cost(summary),
            prices=sorted((summary.prices if summary else {}).items(), key=lambda pair: -pair[1]),
            mixer=_mixer(recipe),
            settings=[(key, _listed(recipe[key])) for key in SECTIONS if key in recipe],
            command=shlex.join(map(str, provenance.get("command") or [])),
            recipe=OmegaConf.to_yaml(OmegaConf.create(recipe)),
            folder=str(folder),
            origin=[*_origin(provenance)],
        )
    )


def _state(summary: RunSummary | None, history: MixtureHistory, recipe: Mapping[str, Any]) -> str:
    if summary is not None:
        return f"finished after {summary.steps:,} steps"
    done = max([0, *history.steps[-1:], *(each.step for each in history.validations[-1:])])
    steps = (recipe.get("trainer") or {}).get("max_steps")
    return f"not finished: step {done:,} of {steps:,}" if steps else f"not finished: step {done:,}"


def _answer(summary: RunSummary | None, history: MixtureHistory) -> str:
    """What the mixer found, or the most drawn domain, and the losses."""
    losses = history.validations[-1].losses if history.validations else {}
    parts = []
    if summary is not None and summary.finding:
        parts.append(summary.finding)
    elif history.realised:
        shares = {d.name: d.share for d in summary.domains} if summary else {}
        parts.append(
            _drawn(shares or dict(zip(history.domains, history.realised[-1], strict=True)))
        )
    if losses:
        worst = max(losses, key=lambda name: losses[name])
        mean = sum(losses.values()) / len(losses)
        parts.append(f"Mean loss {mean:.4f}; worst {worst}, {losses[worst]:.4f}.")
    return " ".join(parts) or "Nothing is reported yet."


def _drawn(shares: Mapping[str, float]) -> str:
    """The most and the least drawn domain, of those that are drawn."""
    drawn = {name: share for name, share in shares.items() if share > 0}
    most, least = (pick(drawn, key=lambda name: drawn[name]) for pick in (max, min))
    not_drawn = [name for name in shares if name not in drawn]
    end = f"; not drawn: {', '.join(not_drawn)}." if not_drawn else "."
    if drawn[most] - drawn[least] < EVEN:
        return f"{len(drawn)} domains were drawn alike, {drawn[most]:.1%} each{end}"
    return f"Drawn most: {most}, {drawn[most]:.1%}; least: {least}, {drawn[least]:.1%}{end}"


def _rows(summary: RunSummary | None, history: MixtureHistory) -> Iterator[tuple[str, ...]]:
    """A row for each domain: of a run that is not finished, of its last point."""
    first = history.validations[0].losses if history.validations else {}
    last = history.validations[-1].losses if history.validations else {}
    finished = {each.name: each for each in summary.domains} if summary else {}
    for index, name in enumerate(history.domains or finished):
        ends = (_decimals(first.get(name)), _decimals(last.get(name)))
        if name in finished:
            each = finished[name]
            shares = (f"{each.share:.1%}", f"{each.effective_share:.1%}")
            counts = (f"{each.tokens:,}", f"{each.epochs:.2f}", f"{each.weight:.3f}")
            yield name, *shares, *counts, *ends
        elif history.steps:
            of = (history.realised[-1][index], history.effective[-1][index])
            weight = f"{history.weights[-1][index]:.3f}"
            yield name, *(f"{share:.1%}" for share in of), "", "", weight, *ends


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _pictures(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(name, address, caption) of each picture that there is."""
    for pattern, caption in PICTURES.items():
        if paths := sorted((folder / FIGURES).glob(f"{pattern}.png")):
            try:
                yield paths[-1].stem, inline_png(read_regular(paths[-1])), caption
            except (OSError, ValueError) as error:
                raise UserError(f"{paths[-1]} cannot be read: {error}") from error


def _cost(summary: RunSummary | None) -> list[tuple[str, str]]:
    if summary is None:
        return []
    return [
        ("tokens", f"{summary.tokens:,}"),
        ("FLOPs", f"{summary.flops:.2e}"),
        ("seconds of training", f"{summary.seconds:,.1f}"),
        ("tokens a second", f"{summary.tokens_per_second:,.0f}"),
    ]


def _mixer(recipe: Mapping[str, Any]) -> tuple[str, str, str]:
    """The mixer's name, what it does if it is one of ours, and its arguments."""
    given = recipe.get("mixer") or {}
    path = str(given.get("class_path", ""))
    name = path.rpartition(".")[2]
    # A user's own class is not imported: that would run its module.
    own = getattr(dograph.mixers, name, None) if path.startswith("dograph.") else None
    about = (own.__doc__ or "").strip().partition("\n")[0] if own is not None else ""
    return name, about.replace("``", ""), _listed(given.get("init_args") or {})


def _listed(value: Any) -> str:
    """A value as text; of a mapping, every key that is set."""
    if not isinstance(value, Mapping):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return ", ".join(f"{key} {inner}" for key, inner in flat(value).items() if inner is not None)


def _origin(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("corpus", "fingerprint", "commit", "versions", "host"):
        if provenance.get(key):
            yield key, _listed(provenance[key])
    for each in provenance.get("resumed") or []:
        yield "resumed with a changed recipe", _listed(each)


def runs_in(folder: Path) -> list[Path]:
    """A run's folder itself; of an experiment, those of its stages that have begun."""
    if (folder / PROVENANCE).exists():
        return [folder]
    stages = sorted(each.parent for each in folder.glob(f"*/{PROVENANCE}"))
    if not stages:
        raise UserError(f"{folder}: no run began here: name a folder such as runs/NAME/seed_0")
    return stages
