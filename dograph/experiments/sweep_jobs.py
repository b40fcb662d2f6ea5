"""What a sweep has to do: recipes × seeds, each known by what decides its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dograph.data.corpus.prepare import prepare
from dograph.errors import UserError
from dograph.experiments.provenance import run_inputs
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose, stage_names
from dograph.experiments.run import check_buildable
from dograph.experiments.run_folder import is_finished, same_runs
from dograph.experiments.stages import Experiment
from dograph.files.atomic import read_json
from dograph.files.checksums import facts_digest
from dograph.files.run_dir import SUMMARY


@dataclass(frozen=True)
class Job:
    """One recipe with one seed.

    Attributes:
        recipe: its file.
        overrides: ``key=value``, with the seed.
        parent: folder of the recipe's runs.
        seed: of the run.
        digest: names what decides the run's numbers.
        staged: whether the recipe has stages.
    """

    recipe: Path
    overrides: tuple[str, ...]
    parent: Path
    seed: int
    digest: str
    staged: bool

    @property
    def name(self) -> str:
        """For people and for the log's file."""
        return f"{self.parent.name} seed {self.seed}"

    def finished(self) -> Path | None:
        """The folder in which it came to its end."""
        if self.staged:
            folder = self.parent / f"seed_{self.seed}"
            return folder if summary_in(folder).get("digest") == self.digest else None
        same = same_runs(self.parent, self.seed, self.digest)
        return next((folder for folder in same if is_finished(folder)), None)


def summary_in(folder: Path) -> Mapping[str, Any]:
    """A finished run's or experiment's summary; empty for one that is missing or damaged."""
    try:
        content = read_json(folder / SUMMARY)
    except (ValueError, OSError):
        return {}
    return content if isinstance(content, Mapping) else {}


def jobs_of(recipes: Sequence[Path], seeds: Sequence[int], overrides: Sequence[str]) -> list[Job]:
    """All jobs, seed by seed, so that a sweep that is stopped leaves whole comparisons.

    Raises:
        UserError: for a mistake in any recipe, or two recipes of one name.
    """
    jobs = [job_of(recipe, seed, overrides) for seed in seeds for recipe in recipes]
    places = [(job.parent, job.seed) for job in jobs]
    for job in jobs:
        if places.count((job.parent, job.seed)) > 1:
            raise UserError(
                f"{job.recipe}: another recipe writes to {job.parent}, too: give it another "
                "name (key `name`)"
            )
    return jobs


def job_of(recipe: Path, seed: int, overrides: Sequence[str]) -> Job:
    """A recipe with a seed, checked; its corpus is prepared if it is not yet.

    Raises:
        UserError: for a mistake in the recipe.
    """
    given = (*overrides, f"seed={seed}")
    if stage_names(recipe, given):
        experiment = Experiment(recipe, given)
        last = list(experiment.check().values())[-1]
        return Job(recipe, given, last.runs / last.name, seed, experiment.digest(), True)
    checked = check(compose(recipe, given))
    check_buildable(checked)
    digest = facts_digest(run_inputs(checked.composition.values, prepare(checked.corpus)))
    return Job(recipe, given, checked.runs / checked.name, seed, digest, False)
