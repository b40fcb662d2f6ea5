"""Recipe files of fixed mixtures, and what their finished runs gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.oracle.design import Mixtures
from dograph.experiments.plan import Plan
from dograph.experiments.provenance import read_provenance
from dograph.experiments.recipe.check import Recipe, check
from dograph.experiments.recipe.compose import OF_MIXER, RecipeFile
from dograph.experiments.run_inputs import RunInputs
from dograph.files.atomic import write_text
from dograph.files.checksums import json_digest
from dograph.mixers.target import Target
from dograph.reports.summary import RunSummary, read_summary

REPLACED = (*OF_MIXER, "swarm", "fit")
"""Sections of a recipe that a fixed mixture replaces."""
STRATIFIED = {"class_path": "dograph.mixers.Stratified"}


@dataclass(frozen=True)
class MixtureRun:
    """A finished run of a fixed mixture."""

    folder: Path
    seed: int
    digest: str
    """digest of the run's inputs."""
    loss: float
    """the target's loss at the end, in nats."""
    summary: RunSummary


def fixed(weights: Mapping[str, float]) -> dict[str, Any]:
    """The recipe's section ``mixer`` of a fixed mixture."""
    return {"class_path": "dograph.mixers.Fixed", "init_args": {"weights": dict(weights)}}


def by_name(mixture: Sequence[float], domains: Sequence[str]) -> dict[str, float]:
    """A mixture's weights by domain."""
    return dict(zip(domains, map(float, mixture), strict=True))


def name_of(weights: Mapping[str, float]) -> str:
    """A short name that stands for a mixture's weights."""
    return f"mixture_{json_digest(dict(weights))[:8]}"


def last_recipe(file: RecipeFile) -> Recipe:
    """The recipe whose mixer is replaced: of one with stages the last, which trains what counts."""
    return Plan.make(file).last if file.stages else check(file.compose())


def drawn_domains(recipe: Recipe, store: Store) -> tuple[str, ...]:
    """Domains that are trained on, in the corpus's order; UserError for fewer than two."""
    unseen = recipe.target.unseen
    domains = tuple(entry.name for entry in store.domains if entry.name not in unseen)
    if len(domains) < 2:
        raise UserError(
            f"{recipe.composition.origin('data.unseen')}: there is one mixture of the "
            f"domains to train on ({', '.join(domains)}): train on two at least"
        )
    return domains


def inputs_but_mixer(recipe: Recipe, store: Store) -> dict[str, Any]:
    """All that decides the numbers of a recipe's runs, but for the mixtures."""
    values = recipe.composition.values
    kept = {key: value for key, value in values.items() if key not in REPLACED}
    return RunInputs(kept, store).content


def write_recipe(
    path: Path, recipe: Recipe, mixer: Mapping[str, Any], runs: Path, name: str, brief: bool = False
) -> Path:
    """Write a resolved recipe with another mixer; everything else decides the numbers as before.

    Args:
        path: where to; its folder is made.
        recipe: the recipe that gives all the rest.
        mixer: section ``mixer``.
        runs: folder of the runs.
        name: name of the experiment.
        brief: validate at the end only, and draw no figures; the numbers stay the same.
    """
    values = {key: value for key, value in recipe.composition.values.items() if key not in REPLACED}
    values |= {"name": name, "runs": str(runs), "mixer": dict(mixer)}
    if brief:
        batches = recipe.steps * recipe.arguments("trainer")["accumulate_grad_batches"]
        values["trainer"] = {**values.get("trainer", {}), "val_check_interval": batches}
        values["report"] = {**values.get("report", {}), "figures_every": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(values)))
    return path


def read_run(folder: Path, target: Target) -> MixtureRun:
    """What a finished run gave; a UserError where its target has no finite loss."""
    summary, provenance = read_summary(folder), read_provenance(folder)
    losses = {d.name: d.validation_loss for d in summary.domains}
    finite = {n: loss for n, loss in losses.items() if loss is not None and math.isfinite(loss)}
    if any(name not in finite for name in target.names(list(losses))):
        raise UserError(
            f"{folder}: the run ended without a finite loss of its target: lower "
            "model.learning_rate, or raise report.non_finite_limit"
        )
    digest = str(provenance.get("digest"))
    return MixtureRun(folder, int(provenance["seed"]), digest, target.loss(finite), summary)


def rows(mixtures: Mixtures, domains: Sequence[str]) -> list[dict[str, float]]:
    """Each mixture's weights by domain."""
    return [by_name(mixture.tolist(), domains) for mixture in mixtures]
