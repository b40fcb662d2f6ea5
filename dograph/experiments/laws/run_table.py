"""Mixtures and losses from finished runs of fixed mixtures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dograph.errors import UserError
from dograph.experiments.comparison.conditions import check_comparable
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.laws.table import MixtureTable, make_table
from dograph.files.run_dir import EARLIER, HISTORY, PROVENANCE, REPRODUCED, STAGE, SUMMARY
from dograph.mixers.target import Target
from dograph.reports.summary import RunSummary, total_cost

FIXED = ("Fixed", "Stratified", "Proportional", "Temperature")
"""Classes of mixers whose weights never change."""


def read_runs(
    folders: Sequence[Path], whole: bool = False, sequences: bool = False
) -> MixtureTable:
    """The table of all finished runs of fixed mixtures in and below some folders.

    Args:
        folders: such as an oracle's, a swarm's, or that of a sweep's runs.
        whole: every validation of a run, not only the last.
        sequences: evaluate the models of one domain alone, sequence by sequence.

    Raises:
        UserError: if there are none, or they differ in more than mixture, seed and target.
    """
    every = [run for folder in folders for run in _below(folder)]
    # A copy is no repeat: it would make the noise between runs look small.
    runs = list({_identity(run): run for run in every}.values())
    fixed = [run for run in runs if run.summary.mixer in FIXED]
    if not fixed:
        raise UserError(
            f"{folders[0]}: no finished run of a fixed mixture in or below it: make some with "
            "`dograph swarm RECIPE`, or name a CSV file"
        )
    notes = check_comparable(fixed, ["target"])
    if copies := len(every) - len(runs):
        notes.append(f"{copies} runs are there twice, or copies of others: counted once")
    if len(runs) > len(fixed):
        notes.append(f"{len(runs) - len(fixed)} runs of other mixers: left out")
    cost = total_cost([run.summary for run in fixed])
    spent = f"{cost['tokens']:,.0f} tokens, {cost['flops']:.2e} FLOPs, {cost['seconds']:,.0f} s"
    notes.append(f"cost of these {len(fixed)} runs: {spent} of training")
    domains = [domain.name for domain in fixed[0].summary.domains]
    rows = [row for run in fixed for row in _rows(run, domains, whole)]
    table = make_table(
        domains,
        np.array([row[0] for row in rows]),
        domains,
        np.array([row[1] for row in rows]),
        steps=np.array([row[2] for row in rows]),
        sizes=_sizes([run.summary for run in fixed]),
        target=target_of(fixed[0].target, domains),
        cost=cost,
        sources={str(run.folder): str(run.metadata.get("digest")) for run in fixed},
        notes=notes,
    )
    if not sequences:
        return table
    from dograph.experiments.laws.sequence_losses import read_sequences  # it imports torch

    return replace(table, sequences=read_sequences(fixed, table.domains))


def _below(folder: Path) -> Iterator[ComparedRun]:
    """Finished runs in and below a folder, but stages, reproductions and replaced optima."""
    for path in sorted(folder.rglob(SUMMARY)):
        run = path.parent
        parts = run.relative_to(folder).parts
        replaced = any(part == EARLIER or part.startswith(REPRODUCED) for part in parts)
        if (run / PROVENANCE).is_file() and not (run / STAGE).exists() and not replaced:
            yield ComparedRun(run.resolve().parent.name, run, (("", run),))


def _identity(run: ComparedRun) -> tuple[str, int]:
    """What a run shares with its copies only."""
    digest = run.metadata.get("digest")
    return str(run.folder if digest is None else digest), run.seed


def _rows(
    run: ComparedRun, domains: Sequence[str], whole: bool
) -> Iterator[tuple[list[float], list[float], float]]:
    """Weights, losses and steps of a run's end, or of each of its validations."""
    by_name = {domain.name: domain for domain in run.summary.domains}
    weights = [by_name[name].weight for name in domains]
    if whole and (run.folder / HISTORY).is_file():
        for each in run.history.validations:
            if 0 < each.step < run.summary.steps:
                yield weights, [each.losses.get(name, math.nan) for name in domains], each.step
    ends = [by_name[name].validation_loss for name in domains]
    yield weights, [math.nan if loss is None else loss for loss in ends], run.summary.steps


def _sizes(summaries: Sequence[RunSummary]) -> dict[str, float]:
    """Tokens by domain, from the run that drew the most of each."""
    sizes: dict[str, float] = {}
    most: dict[str, int] = {}
    for summary in summaries:
        for domain in summary.domains:
            if domain.epochs > 0 and domain.tokens > most.get(domain.name, 0):
                most[domain.name] = domain.tokens
                sizes[domain.name] = domain.tokens / domain.epochs
    return sizes


def target_of(target: Target, domains: Sequence[str]) -> Any:
    """A run's target as weights by name, or "worst"."""
    if target.is_worst:
        return target.value
    return target.by_domain(domains).mixture or dict.fromkeys(target.names(domains), 1.0)
