"""A stage that trains a swarm of fixed mixtures, and proposes one by a law fitted to them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dograph.errors import UserError
from dograph.experiments.laws.fit import Fit
from dograph.experiments.laws.result import FitResult
from dograph.experiments.laws.run_table import read_runs, target_of
from dograph.experiments.laws.table import MixtureTable, make_table
from dograph.experiments.plan import Corpora
from dograph.experiments.provenance import provenance_content
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.domains import source_domains
from dograph.experiments.recipe.swarm_section import errors_by_key
from dograph.experiments.run_inputs import RunInputs
from dograph.experiments.swarm import Swarm
from dograph.files.atomic import write_json, write_text
from dograph.files.run_dir import FIT, PROVENANCE, RECIPE, SUMMARY, SWARM
from dograph.graph.polytope import Polytope
from dograph.reports.summary import DomainSummary, RunSummary, read_summary, total_cost
from dograph.terminal.progress import print_line
from dograph.terminal.screen import Screen
from dograph.training.checkpoint_writer import Interrupted

PLENTY = 1e30
"""Tokens of a domain whose size is not known yet: no limit of epochs binds."""


def check_swarm_early(recipe: Recipe) -> None:
    """Raise UserError for a fit that cannot be made, as far as a corpus's source tells.

    A source that does not open says nothing; preparing it says why.
    """
    assert recipe.swarm is not None
    names = source_domains(recipe)
    if names is None:
        return
    drawn = [name for name in names if name not in recipe.target.unseen]
    settings, total = recipe.swarm[0], len(drawn)
    count = settings.by_rule(total)
    corners = total if settings.corners and (settings.design == "regmix" or not count) else 0
    count += corners + bool(settings.repeats)
    mixtures = np.random.default_rng(0).dirichlet(np.ones(total), count)  # which does not matter
    _check_fit(recipe, drawn, mixtures, dict.fromkeys(drawn, PLENTY), names)


def check_swarm(recipe: Recipe, corpora: Corpora) -> None:
    """The same for the mixtures that will be trained, once the corpus is prepared."""
    assert recipe.swarm is not None
    settings, store = recipe.swarm[0], corpora.prepare(recipe)
    swarm = Swarm(recipe, settings, Path(), corpora)
    domains = swarm.domains
    with errors_by_key(recipe.composition, "swarm"):
        mixtures = swarm.chosen()
    if settings.repeats:
        mixtures = np.concatenate([mixtures, np.full((1, len(domains)), 1 / len(domains))])
    names = [entry.name for entry in store.domains]
    _check_fit(recipe, domains, mixtures, swarm.sizes, names)


def _check_fit(
    recipe: Recipe,
    drawn: Sequence[str],
    mixtures: Any,
    sizes: Mapping[str, float],
    names: Sequence[str],
) -> None:
    """Make a fit of losses that are not known yet: all that it refuses shows."""
    assert recipe.swarm is not None
    swarm, settings = recipe.swarm
    steps = np.full(len(mixtures), float(recipe.steps))
    if swarm.curves:
        mixtures, steps = np.repeat(mixtures, 2, axis=0), np.repeat(steps, 2)
        steps[::2] /= 2
    table: MixtureTable = make_table(
        list(drawn),
        mixtures,
        list(names),
        np.zeros((len(mixtures), len(names))),
        steps=steps,
        sizes=sizes,
        target=target_of(recipe.target, names),
    )
    with errors_by_key(recipe.composition, "fit"):
        distance = recipe.limits.projection
        Fit(table, settings, within=_limits_of(recipe, drawn), distance=distance)


def run_swarm(
    label: str, recipe: Recipe, inputs: RunInputs, folder: Path, corpora: Corpora
) -> None:
    """Train the mixtures that are missing, fit the law, and write what it proposes.

    With another law, or other mixtures, under the same recipe the runs of the earlier fit are used
    again, where they are.

    Args:
        label: name of the stage.
        recipe: the stage's.
        inputs: all that decides the numbers.
        folder: of the stage, ``label`` or ``label_1`` and so on.
        corpora: prepared.

    Raises:
        UserError: if a run fails, once the others are done.
        Interrupted: on SIGINT or SIGTERM, after every run has saved a checkpoint.
    """
    assert recipe.swarm is not None
    settings, law = recipe.swarm
    console = Screen()
    swarm = Swarm(recipe, settings, folder, corpora, console)
    swarm.folder = _earlier(swarm, folder.parent, label) or folder
    try:
        finished = swarm.run()
        if swarm.failures:
            failed = swarm.failures[0]
            raise UserError(
                f"{failed.log}: {failed.job.name} failed ({failed.reason}); run this again once "
                f"the reason is gone, finished runs are kept:\n{failed.last_lines()}"
            )
        began = time.monotonic()
        table = read_runs(finished, law.law == "bimix", sequences=law.law == "mixmin")
        with errors_by_key(recipe.composition, "fit"):
            within = _limits_of(recipe, table.domains)
            result = Fit(table, law, console, within, recipe.limits.projection).run()
    except KeyboardInterrupt as interruption:
        raise Interrupted(None) from interruption
    seconds = time.monotonic() - began
    for shown in result.tables():
        console.print(shown)
    print_line(console, result.sentence)
    write_json(folder / FIT, result.as_json())
    write_text(folder / RECIPE, recipe.as_yaml())
    write_json(folder / PROVENANCE, provenance_content(recipe, inputs, processes=1))
    summary = _summary(recipe, result, [read_summary(run) for run in finished], seconds)
    runs = [str(run.relative_to(folder.parent)) for run in finished]
    content = {**summary.as_json(), "runs": runs, "fit": _fit_content(result, seconds)}
    write_json(folder / SUMMARY, content)


def _limits_of(recipe: Recipe, domains: Sequence[str]) -> Polytope | None:
    """The recipe's limits on shares; epochs are those of the run that draws the proposal."""
    bounds = recipe.limits.bounds(domains)
    return Polytope.of(bounds, np.ones(len(domains), dtype=bool)) if bounds else None


def _earlier(swarm: Swarm, experiment: Path, label: str) -> Path | None:
    """The folder of a swarm of the same stage, whose runs differ in their mixtures only."""
    others = sorted(experiment.glob(f"{label}_*"))
    numbered = [path for path in others if path.name.removeprefix(f"{label}_").isdecimal()]
    for path in [experiment / label, *numbered]:
        if (path / SWARM).is_file() and not swarm.changes(path):
            return path
    return None


def _fit_content(result: FitResult, seconds: float) -> dict[str, Any]:
    """What a summary says of a fit; ``fit.json`` holds the rest."""
    return {
        "law": result.law,
        "note": result.note,
        "target": dict(result.target),
        **result.target_errors.as_json(),
        "expected_loss": result.proposal.loss,
        "expected_gain": result.gain,
        "weights": dict(result.proposal.weights),
        "seconds": seconds,
    }


def _summary(
    recipe: Recipe, result: FitResult, runs: Sequence[RunSummary], seconds: float
) -> RunSummary:
    """All runs' tokens and costs together, the fit's seconds with them, and the proposal."""
    cost, total = total_cost(runs), sum(run.tokens for run in runs)
    domains = []
    for same in zip(*(run.domains for run in runs), strict=True):
        name, tokens = same[0].name, sum(each.tokens for each in same)
        weight = result.proposal.weights.get(name, 0.0)
        domains.append(
            DomainSummary(
                name=name,
                share=tokens / total,
                effective_share=tokens / total,
                tokens=tokens,
                epochs=sum(each.epochs for each in same),
                validation_loss=None,
                validation_perplexity=None,
                weight=weight,
                average_weight=weight,
            )
        )
    return RunSummary(
        mixer=f"{len(runs)} fixed mixtures, law {result.law}",
        steps=recipe.steps,
        seconds=cost["seconds"] + seconds,
        flops=cost["flops"],
        domains=tuple(domains),
        scores={},
        worst_domain=None,
        target=recipe.target.value,
        finding=result.sentence,
    )
