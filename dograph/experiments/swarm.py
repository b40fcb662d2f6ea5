"""Runs of many fixed mixtures under one recipe, for a law to be fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.oracle.design import (
    Mixtures,
    corner,
    first_mixtures,
    regmix_mixtures,
    rounded,
)
from dograph.experiments.oracle.mixture_runs import (
    STRATIFIED,
    drawn_domains,
    fixed,
    inputs_but_mixer,
    last_recipe,
    name_of,
    rows,
    write_recipe,
)
from dograph.experiments.oracle.search import SEARCH_SEED
from dograph.experiments.plan import Corpora
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.compose import COMMAND_LINE, RecipeFile
from dograph.experiments.recipe.swarm_section import SwarmSettings
from dograph.experiments.run_inputs import input_changes
from dograph.experiments.sweep import Failure, Sweep, jobs_of
from dograph.files.atomic import read_mapping, write_json
from dograph.files.run_dir import MIXTURES, OF_SWARM, SWARM
from dograph.terminal.screen import Screen


@dataclass
class Swarm:
    """Runs of fixed mixtures, with one seed, and repeats of the even one with several.

    Runs are those of a sweep: each has a process, finished ones are not repeated, interrupted ones
    are resumed. All are in the folder's ``mixtures``.
    """

    recipe: Recipe
    """its mixer does not matter."""
    settings: SwarmSettings
    folder: Path
    corpora: Corpora = field(default_factory=Corpora)
    console: Console = field(default_factory=Screen)
    failures: list[Failure] = field(init=False, default_factory=list)
    """runs that failed in the last ``run``."""

    @classmethod
    def of(cls, file: RecipeFile, settings: SwarmSettings, console: Console) -> Swarm:
        """The swarm of a recipe, of one with stages its last, in ``RUNS/NAME_swarm``."""
        recipe = last_recipe(file)
        folder = recipe.runs / f"{recipe.name}{OF_SWARM}"
        return cls(recipe, settings, folder, console=console)

    def run(self) -> list[Path]:
        """Run what is missing; return the folders of all finished runs.

        A run that fails does not stop the others; ``failures`` has them.

        Raises:
            UserError: for mistakes, before anything runs.
            KeyboardInterrupt: on SIGINT or SIGTERM, after every run has saved a checkpoint.
        """
        mixtures, settings = self.chosen(), self.settings
        self._claim_folder()
        seed = self.recipe.seed + SEARCH_SEED
        recipes = [
            self._write(name_of(weights), fixed(weights))
            for weights in rows(mixtures, self.domains)
        ]
        jobs = jobs_of(recipes, [seed], ())
        if settings.repeats:
            even = self._write("even", STRATIFIED)
            jobs += jobs_of([even], [seed + number for number in range(settings.repeats)], ())
        processes, threads = settings.processes, settings.threads
        sweep = Sweep(recipes, [seed], (), processes, threads, console=self.console)
        finished = sweep.run_jobs(jobs)
        self.failures = sweep.failures
        write_json(self.folder / SWARM, {**self._content, "finished": not self.failures})
        return finished

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Domains that are trained on, in the corpus's order."""
        return drawn_domains(self.recipe, self._store)

    @property
    def sizes(self) -> dict[str, float]:
        """Tokens to train on by domain, after ``data.cap``."""
        cap = self.recipe.arguments("data")["cap"] or {}
        entries = [self._store.entry(name) for name in self.domains]
        return {each.name: min(each.train_tokens, cap.get(each.name, math.inf)) for each in entries}

    def chosen(self) -> Mixtures:
        """(n, S) distinct mixtures by the design, then corners."""
        settings, domains = self.settings, self.domains
        count = settings.by_rule(len(domains))
        if settings.design == "oracle" and count:
            mixture = self.recipe.target.by_domain(domains).mixture
            counted = np.array([mixture.get(n, 0.0) for n in domains])
            return first_mixtures(count, counted / (counted.sum() or 1.0), self.recipe.seed)
        mixtures = self._by_regmix(count) if count else np.empty((0, len(domains)))
        if settings.corners:
            total = len(domains)
            tops = rounded(np.array([corner(s, total, settings.corners) for s in range(total)]))
            mixtures = np.concatenate([mixtures, tops])
        return np.array(list(dict.fromkeys(map(tuple, mixtures.tolist()))))

    def _by_regmix(self, count: int) -> Mixtures:
        tokens = np.array([*self.sizes.values()], dtype=np.float64)
        mixtures = regmix_mixtures(count, tokens / tokens.sum(), self.recipe.seed)
        if len(mixtures) < count:
            raise UserError(
                f"{COMMAND_LINE}: mixtures is {count}: RegMix's rule gives {len(mixtures)} of "
                "these domains, whose tokens differ too much: lower it, or add --design oracle"
            )
        return mixtures

    @property
    def _store(self) -> Store:
        return self.corpora.prepare(self.recipe)

    def _write(self, name: str, mixer: dict[str, Any]) -> Path:
        folder = self.folder / MIXTURES
        path = folder / f"{name}.yaml"
        return write_recipe(path, self.recipe, mixer, folder, name, not self.settings.curves)

    @cached_property
    def _content(self) -> dict[str, Any]:
        inputs = inputs_but_mixer(self.recipe, self._store)
        return {"inputs": inputs, "curves": self.settings.curves}

    def _claim_folder(self) -> None:
        """Take the folder; UserError if it holds another recipe's swarm, which no law fits with."""
        if changed := self.changes(self.folder):
            raise UserError(
                f"{self.folder / SWARM} is of another recipe (changed: {', '.join(changed)}): give "
                "this one another name (key `name`)"
            )
        write_json(self.folder / SWARM, {**self._content, "finished": False})

    def changes(self, folder: Path) -> list[str]:
        """In what the swarm in a folder differs from this one, but for mixtures; none if free."""
        before = read_mapping(folder / SWARM)
        if not before:
            return []
        changed = [*input_changes(before.get("inputs") or {}, self._content["inputs"])]
        return changed + (["--curves"] if before.get("curves") != self.settings.curves else [])
