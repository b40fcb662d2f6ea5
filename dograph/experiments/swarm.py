"""Runs of many fixed mixtures under one recipe, for a law to be fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dograph.errors import UserError, check_range, nearest
from dograph.experiments.oracle.design import (
    CORNERS,
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
from dograph.experiments.run_inputs import input_changes
from dograph.experiments.sweep import Failure, Sweep, jobs_of
from dograph.files.atomic import read_mapping, write_json
from dograph.files.run_dir import MIXTURES, OF_SWARM, SWARM
from dograph.terminal.screen import Screen

DESIGNS = ("regmix", "oracle")
"""Rules by which mixtures are chosen: RegMix's, or that of an oracle's first round."""
FEWEST, EACH = 32, 6
"""Mixtures: so many, or so many for each domain, whichever is more."""


@dataclass
class Swarm:
    """Runs of fixed mixtures, with one seed, and repeats of the even one with several.

    Runs are those of a sweep: each has a process, finished ones are not repeated, interrupted ones
    are resumed. All are in ``RUNS/NAME_swarm/mixtures``.
    """

    file: RecipeFile
    mixtures: int | None = None
    """mixtures by the rule, ≥ 2. None: 32, or six for each domain if that is more."""
    design: str = "regmix"
    """one of ``DESIGNS``."""
    corners: bool = True
    """whether each domain also has a mixture in which it has most of the weight (ours)."""
    repeats: int = 3
    """runs of the even mixture, ≥ 0; their spread is the noise floor."""
    curves: bool = False
    """validate as often as the recipe says, for a law of steps, not only at the end."""
    processes: int = 1
    """runs at once."""
    threads: int | None = None
    """threads of each run. None: as in a sweep."""
    console: Console = field(default_factory=Screen)

    def __post_init__(self) -> None:
        for key, value, least in (("mixtures", self.mixtures, 2), ("repeats", self.repeats, 0)):
            if value is not None:
                check_range(f"{COMMAND_LINE}: {key}", value, at_least=least)
        if self.design not in DESIGNS:
            hint = nearest(self.design, DESIGNS) or f": choose one of {', '.join(DESIGNS)}"
            raise UserError(f"{COMMAND_LINE}: design is {self.design!r}{hint}")
        self.recipe: Recipe = last_recipe(self.file)
        self.folder = self.recipe.runs / f"{self.recipe.name}{OF_SWARM}"
        self.failures: list[Failure] = []
        self._corpora = Corpora()

    def run(self) -> list[Path]:
        """Run what is missing; return the folders of all finished runs.

        A run that fails does not stop the others; ``failures`` has them.

        Raises:
            UserError: for mistakes, before anything runs.
            KeyboardInterrupt: on SIGINT or SIGTERM, after every run has saved a checkpoint.
        """
        mixtures = self.chosen()
        self._claim_folder()
        place, seed = self.folder / MIXTURES, self.recipe.seed + SEARCH_SEED
        recipes = [
            self._write(name_of(weights), fixed(weights))
            for weights in rows(mixtures, self.domains)
        ]
        jobs = jobs_of(recipes, [seed], ())
        if self.repeats:
            even = self._write("even", STRATIFIED)
            jobs += jobs_of([even], [seed + number for number in range(self.repeats)], ())
        sweep = Sweep(recipes, [seed], (), self.processes, self.threads, console=self.console)
        finished = sweep.run_jobs(jobs)
        self.failures = sweep.failures
        write_json(place.parent / SWARM, {**self._content, "finished": not self.failures})
        return finished

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Domains that are trained on, in the corpus's order."""
        return drawn_domains(self.recipe, self._corpora.prepare(self.recipe))

    def chosen(self) -> Mixtures:
        """(n, S) distinct mixtures by the design, then corners."""
        count = self.mixtures or max(FEWEST, EACH * len(self.domains))
        store, seed = self._corpora.prepare(self.recipe), self.recipe.seed
        if self.design == "oracle":
            counted = np.array([self.recipe.target.mixture.get(n, 0.0) for n in self.domains])
            return first_mixtures(count, counted / (counted.sum() or 1.0), seed)
        cap = self.recipe.arguments("data")["cap"] or {}
        entries = [store.entry(name) for name in self.domains]
        left = [min(each.train_tokens, cap.get(each.name, math.inf)) for each in entries]
        tokens = np.array(left, dtype=np.float64)
        mixtures = regmix_mixtures(count, tokens / tokens.sum(), seed)
        if len(mixtures) < count:
            raise UserError(
                f"{COMMAND_LINE}: mixtures is {count}: RegMix's rule gives {len(mixtures)} of "
                "these domains, whose tokens differ too much: lower it, or add --design oracle"
            )
        if self.corners:
            total = len(self.domains)
            tops = rounded(np.array([corner(s, total, CORNERS[0]) for s in range(total)]))
            mixtures = np.concatenate([mixtures, tops])
        return np.array(list(dict.fromkeys(map(tuple, mixtures.tolist()))))

    def _write(self, name: str, mixer: dict[str, Any]) -> Path:
        folder = self.folder / MIXTURES
        path = folder / f"{name}.yaml"
        return write_recipe(path, self.recipe, mixer, folder, name, not self.curves)

    @cached_property
    def _content(self) -> dict[str, Any]:
        inputs = inputs_but_mixer(self.recipe, self._corpora.prepare(self.recipe))
        return {"inputs": inputs, "curves": self.curves}

    def _claim_folder(self) -> None:
        """Take the folder; UserError if it holds another recipe's swarm, which no law fits with."""
        path = self.folder / SWARM
        before = read_mapping(path)
        changed = [*input_changes(before.get("inputs") or {}, self._content["inputs"])]
        changed += ["--curves"] if before.get("curves") != self.curves else []
        if before and changed:
            raise UserError(
                f"{path} is of another recipe (changed: {', '.join(changed)}): give this one "
                "another name (key `name`)"
            )
        write_json(path, {**self._content, "finished": False})
