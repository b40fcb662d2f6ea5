"""Finished runs on disk: what was scored, at which cost."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.errors import UserError
from dograph.evaluation.task_results import Results, read_results, stale_tasks, suite_means
from dograph.experiments.provenance import read_provenance
from dograph.experiments.recipe.compose import load_yaml
from dograph.files.changes import midway_changes
from dograph.files.run_dir import (
    FINAL_CHECKPOINT,
    HISTORY,
    MIXTURES,
    ORACLE,
    PROVENANCE,
    RECIPE,
    REPRODUCED,
    STAGE,
    SUMMARY,
    SWARM,
)
from dograph.mixers.target import Target
from dograph.reports.history import MixtureHistory
from dograph.reports.summary import RunSummary, read_stages, read_summary
from dograph.training.checkpoint_reader import CheckpointIdentity, content_digest

DEEPEST = 3
"""Folders below a given one in which runs are looked for: all runs, a recipe's, a seed's."""


@dataclass(frozen=True)
class ComparedRun:
    """A finished run, or a finished experiment by its last stage.

    Attributes:
        method: the recipe's name, with the folder above it where one name stands for two.
        folder: directory of the run or the experiment.
        stages: (name, folder) of every stage, in order; the run itself without a name.
        judged_by: a target in place of the run's own.
    """

    method: str
    folder: Path
    stages: tuple[tuple[str, Path], ...]
    judged_by: Target | None = None

    @property
    def final(self) -> Path:
        """Folder of the run, or of the experiment's last stage."""
        return self.stages[-1][1]

    @cached_property
    def seed(self) -> int:
        """The seed of everything random."""
        return int(self.metadata["seed"])

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The final run's ``provenance.json``."""
        return read_provenance(self.final)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The final run's resolved recipe."""
        return recipe_of(self.final)

    @cached_property
    def target(self) -> Target:
        """What the run is judged by: its own target unless another is given."""
        return self.own_target if self.judged_by is None else self.judged_by

    @cached_property
    def own_target(self) -> Target:
        """The target of the final run's recipe."""
        data, source = self.recipe.get("data") or {}, self.final / RECIPE
        if not isinstance(data, Mapping):
            raise UserError(f"{source}: data must be a mapping, got {data!r}")
        try:
            return Target.parse(self.recipe.get("target"), data.get("unseen") or ())
        except (UserError, TypeError) as error:
            raise UserError(f"{source}: {error}") from error

    @cached_property
    def summary(self) -> RunSummary:
        """The run's numbers; of an experiment, the last stage's."""
        return read_summary(self.final)

    @cached_property
    def history(self) -> MixtureHistory:
        """Validations and weights over the run; a UserError if it does not fit the summary."""
        history = MixtureHistory.read(self.final)
        if set(history.domains) != {domain.name for domain in self.summary.domains}:
            raise UserError(f"{self.final}: history and summary name different domains")
        return history

    @property
    def has_history(self) -> bool:
        """Whether the run's history is there; its end is known without it."""
        return (self.final / HISTORY).is_file()

    @cached_property
    def losses(self) -> dict[str, float]:
        """Final validation loss in nats a token, by domain; a UserError where it is not finite."""
        domains = self.summary.domains
        ends = {domain.name: domain.validation_loss for domain in domains}
        losses = {n: loss for n, loss in ends.items() if loss is not None and math.isfinite(loss)}
        if len(losses) < len(domains) or not losses:
            raise UserError(
                f"{self.final}: the run ended without a finite validation loss for every domain; "
                "leave it out, or run it again with trainer.val_check_interval set and "
                "corpus.validation_fraction above 0"
            )
        try:
            self.target.check(list(losses))
        except UserError as error:
            raise UserError(f"{self.final / RECIPE}: {error}") from error
        return losses

    @property
    def target_loss(self) -> float:
        """The target's final validation loss."""
        return self.target.loss(self.losses)

    @property
    def mean_loss(self) -> float:
        """Mean over domains of the final validation loss."""
        return sum(self.losses.values()) / len(self.losses)

    @property
    def worst_loss(self) -> float:
        """Highest of the domains' final validation losses."""
        return max(self.losses.values())

    @cached_property
    def earlier_cost(self) -> dict[str, float]:
        """Tokens, FLOPs and seconds of the stages before the last; zeros without any."""
        costs = [read_summary(folder).cost for _, folder in self.stages[:-1]]
        return {key: sum(cost[key] for cost in costs) for key in self.summary.cost}

    @property
    def cost(self) -> dict[str, float]:
        """Tokens, FLOPs and seconds of all stages."""
        return {key: self.earlier_cost[key] + value for key, value in self.summary.cost.items()}

    @cached_property
    def stale_tasks(self) -> list[str]:
        """Downstream tasks that were evaluated on an earlier checkpoint than the run's last."""
        if not (results := read_results(self.final)):
            return []
        digest = content_digest(self.final / FINAL_CHECKPOINT)
        changed = midway_changes(self.final, self.metadata) is not None
        return stale_tasks(results, CheckpointIdentity(self.summary.steps, digest), changed)

    @cached_property
    def tasks(self) -> Results:
        """Results of downstream tasks of the run's last checkpoint."""
        results = read_results(self.final)
        return {name: each for name, each in results.items() if name not in self.stale_tasks}

    @property
    def accuracies(self) -> dict[str, float]:
        """Mean accuracy of each suite of downstream tasks that was evaluated whole."""
        return suite_means(self.tasks)

    @property
    def task_conditions(self) -> dict[str, tuple[object, ...]]:
        """Examples, seed and harness that each downstream task was evaluated with."""
        return {name: result.conditions for name, result in self.tasks.items()}


def find_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """The finished runs in and below some folders; an experiment's stages count as one run."""
    by_folder: dict[Path, ComparedRun] = {}
    for path in paths:
        runs = list(_below(path, DEEPEST))
        if not runs:
            raise UserError(
                f"{path}: no finished run in it (a folder with {SUMMARY} and {PROVENANCE}): name "
                "folders such as runs/uniform_gpt2 or runs/uniform_gpt2/seed_0"
            )
        by_folder.update({run.folder.resolve(): run for run in runs})
    return _distinct(list(by_folder.values()))


def by_method(runs: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """Runs grouped by their method, in their order."""
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run)
    return groups


def _distinct(runs: list[ComparedRun]) -> list[ComparedRun]:
    """The runs, named by the folder above, too, where one name stands for several methods."""
    places: dict[str, set[Path]] = {}
    for run in runs:
        places.setdefault(run.method, set()).add(run.folder.resolve().parent)
    named = []
    for run in runs:
        above = run.folder.resolve().parent.parent.name
        several = len(places[run.method]) > 1
        named.append(replace(run, method=f"{above}/{run.method}") if several else run)
    by_place: dict[tuple[str, int], ComparedRun] = {}
    for run in named:
        twin = by_place.setdefault((run.method, run.seed), run)
        if twin is not run:
            raise UserError(
                f"{twin.folder} and {run.folder} are both {run.method} with seed {run.seed}: name "
                "the runs to compare one by one"
            )
    return named


def unfinished(paths: Sequence[Path]) -> list[Path]:
    """Folders of runs and experiments that began and did not finish."""
    files = [path.glob(f"**/{name}") for path in paths for name in (PROVENANCE, STAGE)]
    begun = {file.parent for each in files for file in each}
    # A stage stands for its experiment.
    whole = {folder.parent if (folder / STAGE).exists() else folder for folder in begun}
    return sorted(
        folder
        for folder in whole
        if not any(part.startswith(REPRODUCED) for part in folder.parts)
        and not any(map(is_search, folder.parents))
        and not ((folder / SUMMARY).is_file() and _run_in(folder))
    )


def is_search(folder: Path) -> bool:
    """Whether a folder holds the runs of an oracle's search or a swarm, which are no methods."""
    return folder.name == MIXTURES and any((folder.parent / n).is_file() for n in (ORACLE, SWARM))


def recipe_of(folder: Path) -> dict[str, Any]:
    """A run's resolved recipe."""
    values = OmegaConf.to_container(load_yaml(folder / RECIPE))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _below(folder: Path, deepest: int) -> Iterator[ComparedRun]:
    if (folder / SUMMARY).is_file():
        run = _run_in(folder)
        if run is not None:
            yield run
        return
    if deepest and folder.is_dir():
        for inner in sorted(folder.iterdir(), key=_in_numbers_order):
            hidden = inner.name.startswith(".") or is_search(inner)
            # An unfinished stage of an experiment is not a run of its own.
            if inner.is_dir() and not hidden and not (inner / STAGE).exists():
                yield from _below(inner, deepest - 1)


def _run_in(folder: Path) -> ComparedRun | None:
    """The run or the experiment in a folder; None for a summary of neither."""
    name = folder.resolve().parent.name
    if any((folder / own).is_file() for own in (HISTORY, PROVENANCE)):
        return ComparedRun(name, folder, (("", folder),))
    stages = read_stages(folder)
    return ComparedRun(name, folder, tuple(stages)) if stages else None


def _in_numbers_order(path: Path) -> list[tuple[int, str]]:
    """A sort key by which seed_10 comes after seed_9."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", path.name)]
