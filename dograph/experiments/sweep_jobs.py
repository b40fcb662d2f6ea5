"""The jobs of a sweep: recipes × seeds, each recognised by what decides its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dograph.errors import UserError
from dograph.experiments.corpora import Corpora
from dograph.experiments.plan import Plan
from dograph.experiments.provenance import run_inputs
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.run_folder import is_finished, read_mapping, same_runs
from dograph.files.checksums import json_digest
from dograph.files.run_dir import SUMMARY, seed_dir


@dataclass(frozen=True)
class Job:
    """One recipe with one seed."""

    recipe: Path
    overrides: tuple[str, ...]
    """``key=value``, with the seed."""
    parent: Path
    """folder of the recipe's runs."""
    seed: int
    digest: str
    """digest of what decides the run's numbers."""
    staged: bool
    """whether the recipe has stages."""

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.parent.name} seed {self.seed}"

    def finished(self) -> Path | None:
        """The folder of its finished run; None if it is not finished."""
        if self.staged:
            folder = seed_dir(self.parent, self.seed)
            return folder if read_mapping(folder / SUMMARY).get("digest") == self.digest else None
        same = same_runs(self.parent, self.seed, self.digest)
        return next((folder for folder in same if is_finished(folder)), None)


def jobs_of(recipes: Sequence[Path], seeds: Sequence[int], overrides: Sequence[str]) -> list[Job]:
    """All jobs, seed by seed, so that a sweep that is stopped leaves whole comparisons.

    Raises:
        UserError: for a mistake in any recipe, or two recipes of one name.
    """
    corpora = Corpora()
    jobs = [job_of(recipe, seed, overrides, corpora) for seed in seeds for recipe in recipes]
    places = [(job.parent, job.seed) for job in jobs]
    for job in jobs:
        if places.count((job.parent, job.seed)) > 1:
            raise UserError(
                f"{job.recipe}: another recipe writes to {job.parent}, too: give it another "
                "name (key `name`)"
            )
    return jobs


def job_of(path: Path, seed: int, overrides: Sequence[str], corpora: Corpora) -> Job:
    """Check a recipe with a seed, and prepare its corpus if it is not yet."""
    given = (*overrides, f"seed={seed}")
    file = RecipeFile(path, given)
    if file.stages:
        plan = Plan.make(file)
        return Job(path, given, plan.folder.parent, seed, plan.digest(corpora), True)
    recipe = check(file.compose())
    store = corpora.prepare(recipe.corpus)
    digest = json_digest(run_inputs(recipe.composition.values, store))
    return Job(path, given, recipe.runs / recipe.name, seed, digest, False)
