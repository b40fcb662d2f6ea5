"""Finds the best fixed mixture for a recipe's target, and validates it over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dograph.errors import UserError, check_range
from dograph.experiments.open_run import free_folder, is_free
from dograph.experiments.oracle.design import Mixtures, first_mixtures
from dograph.experiments.oracle.mixture_runs import (
    STRATIFIED,
    MixtureRun,
    drawn_domains,
    fixed,
    inputs_but_mixer,
    last_recipe,
    name_of,
    read_run,
    rows,
    write_recipe,
)
from dograph.experiments.oracle.result import Fit, OracleResult, Tried, described
from dograph.experiments.oracle.surrogate import Surrogate
from dograph.experiments.plan import Corpora
from dograph.experiments.provenance import read_provenance
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.compose import COMMAND_LINE, RecipeFile
from dograph.experiments.run_inputs import input_changes
from dograph.experiments.sweep import Job, Sweep, job_of
from dograph.files.atomic import read_mapping, write_json
from dograph.files.run_dir import EARLIER, MIXTURES, OF_ORACLE, ORACLE
from dograph.reports.finding import target_name
from dograph.terminal.screen import Screen

SEARCH_SEED = 1000
"""Added to the recipe's seed for the search, so that no validated seed chose the mixture."""
FEWEST, EACH = 24, 3
"""Mixtures of the first round: so many, or so many for each domain, whichever is more."""
LATER = 4
"""A later round tries one mixture for so many of the first round's, at least two."""


@dataclass
class Oracle:
    """A search for the best fixed mixture under a recipe's model, data, tokens and target.

    Every mixture is tried once, with a seed of the search's own. Runs are those of a sweep: each
    has a process, finished ones are not repeated, interrupted ones are resumed. All are in
    ``RUNS/NAME_oracle``: the validated ones as ``seed_S``, the others below ``mixtures``.
    """

    file: RecipeFile
    mixtures: int | None = None
    """mixtures of the first round, ≥ 2. None: 24, or three for each domain if that is more."""
    rounds: int = 2
    """the first and those that refine it, ≥ 1."""
    seeds: int = 5
    """of the validation: the recipe's and the next ones, ≥ 1."""
    processes: int = 1
    """runs at once."""
    threads: int | None = None
    """threads of each run. None: as in a sweep."""
    force: bool = False
    """whether an oracle of another recipe may be replaced; its runs are kept."""
    console: Console = field(default_factory=Screen)

    def __post_init__(self) -> None:
        for key, value, least in (
            ("mixtures", self.mixtures, 2),
            ("rounds", self.rounds, 1),
            ("seeds", self.seeds, 1),
        ):
            if value is not None:
                check_range(f"{COMMAND_LINE}: {key}", value, at_least=least)
        self.recipe: Recipe = last_recipe(self.file)
        if self.recipe.limits.is_set:
            raise UserError(
                f"{self.recipe.composition.origin('limits')}: limits are set: an oracle tries "
                "mixtures beyond them, which would not be drawn: leave them out"
            )
        self.name = f"{self.recipe.name}{OF_ORACLE}"
        self.folder = self.recipe.runs / self.name
        self._corpora = Corpora()

    def run(self) -> OracleResult:
        """Search, validate and write ``oracle.json``; print a line at every step.

        Raises:
            UserError: for mistakes, before anything runs; if a run fails.
            KeyboardInterrupt: on SIGINT or SIGTERM, after every run has saved a checkpoint.
        """
        tried = self._try(self._claim_folder())
        for number in range(1, self.rounds + 1):
            mixtures = rows(self._next(number, tried), self.domains)
            self._print(f"{self.recipe.target.label}: round {number} of {self.rounds}")
            tried += self._try([(number, weights) for weights in mixtures])
            best = min(tried, key=lambda each: each.run.loss)
            self._print(f"best of {len(tried)}: {described(best.weights)}: {best.run.loss:.4f}")
        fit = self._fit(tried)
        even, oracle = self._validate(fit.weights)
        target = target_name(self.recipe.target.label)
        result = OracleResult(self.name, target, tuple(tried), fit, oracle, even)
        record = {"inputs": self._inputs, "finished": True}
        write_json(self.folder / ORACLE, {**record, **result.as_json()})
        return result

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Domains that are trained on, in the corpus's order."""
        return drawn_domains(self.recipe, self._corpora.prepare(self.recipe))

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        """All that decides the numbers, but for the mixtures."""
        return inputs_but_mixer(self.recipe, self._corpora.prepare(self.recipe))

    @property
    def _seed(self) -> int:
        return self.recipe.seed + SEARCH_SEED

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _claim_folder(self) -> list[tuple[int, dict[str, float]]]:
        """Take the folder; UserError for other runs, another recipe's oracle, or one domain.

        Returns round and weights of all mixtures that an earlier search of this recipe tried.
        """
        assert self.domains  # a UserError for fewer than two, before anything is written
        before = read_mapping(self.folder / ORACLE)
        if not before and self._validated_folders():
            raise UserError(
                f"{self.folder} holds runs that no oracle made: give the recipe another name "
                "(key `name`)"
            )
        changed = input_changes(before.get("inputs") or {}, self._inputs)
        if before and changed and not self.force:
            raise UserError(
                f"{self.folder / ORACLE} is of another recipe (changed: {', '.join(changed)}): "
                "give this one another name (key `name`), or add --force"
            )
        if changed:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / ORACLE, {"inputs": self._inputs, "finished": False})
            return []
        try:
            return [
                (int(each["round"]), {name: float(each["weights"][name]) for name in self.domains})
                for each in before.get("mixtures", [])
            ]
        except (LookupError, TypeError, ValueError) as error:
            path = self.folder / ORACLE
            raise UserError(
                f"{path} is damaged: give the recipe another name (key `name`)"
            ) from error

    def _next(self, number: int, tried: Sequence[Tried]) -> Mixtures:
        """What is missing of a round, less what was tried before."""
        count = self.mixtures or max(FEWEST, EACH * len(self.domains))
        if number > 1:
            missing = count + (number - 1) * max(count // LATER, 2) - len(tried)
            return self._surrogate(tried).propose(max(missing, 0))
        counted = self.recipe.target.by_domain(self.domains).mixture
        target = np.array([counted.get(name, 0.0) for name in self.domains])
        share = target.sum() or 1.0  # the rest is of unseen domains
        first = first_mixtures(count, target / share, self.recipe.seed)
        known = [list(each.weights.values()) for each in tried]
        return np.array([row for row in first.tolist() if row not in known])

    def _surrogate(self, tried: Sequence[Tried]) -> Surrogate:
        mixtures = np.array([[each.weights[name] for name in self.domains] for each in tried])
        losses = np.array([each.run.loss for each in tried])
        return Surrogate(mixtures, losses, self.recipe.seed)

    def _try(self, mixtures: Sequence[tuple[int, dict[str, float]]]) -> list[Tried]:
        """Run mixtures, each with its round, once."""
        folder, recipes = self.folder / MIXTURES, []
        for _, weights in mixtures:
            name = name_of(weights)
            path = folder / f"{name}.yaml"
            recipes.append(write_recipe(path, self.recipe, fixed(weights), folder, name, True))
        runs = self._sweep(recipes, [self._seed]) if recipes else []
        return [Tried(*each, run) for each, run in zip(mixtures, runs, strict=True)]

    def _fit(self, tried: Sequence[Tried]) -> Fit:
        surrogate = self._surrogate(tried)
        optimum, even = surrogate.optimum(), np.full(len(self.domains), 1 / len(self.domains))
        mean, deviation = surrogate.predict(np.stack([optimum, even]))
        return Fit(
            kernel=surrogate.kernel,
            noise=surrogate.noise,
            loo_error=surrogate.loo_error,
            loss_spread=float(surrogate.losses.std()),
            weights=rows(optimum[None], self.domains)[0],
            expected=float(mean[0]),
            deviation=float(deviation[0]),
            expected_even=float(mean[1]),
        )

    def _validate(
        self, weights: Mapping[str, float]
    ) -> tuple[tuple[MixtureRun, ...], tuple[MixtureRun, ...]]:
        """Run the even mixture and the optimum with all seeds."""
        seeds = [self.recipe.seed + number for number in range(self.seeds)]
        self._print(f"{self.recipe.target.label}: validation with {self.seeds} seeds")
        mixtures = self.folder / MIXTURES
        even = write_recipe(mixtures / "even.yaml", self.recipe, STRATIFIED, mixtures, "even")
        path, runs = self.folder / "oracle.yaml", self.recipe.runs
        oracle = write_recipe(path, self.recipe, fixed(weights), runs, self.name)
        self._set_aside(oracle)
        ran = self._sweep([even, oracle], seeds)
        return tuple(ran[::2]), tuple(ran[1::2])  # seed by seed

    def _sweep(self, recipes: Sequence[Path], seeds: Sequence[int]) -> list[MixtureRun]:
        sweep = Sweep(recipes, seeds, (), self.processes, self.threads, console=self.console)
        folders = sweep.run()
        if sweep.failures:
            failed = sweep.failures[0]
            raise UserError(
                f"{failed.log}: {failed.job.name} failed ({failed.reason}); run this again once "
                f"the reason is gone, finished runs are kept:\n{failed.last_lines()}"
            )
        return [read_run(folder, self.recipe.target) for folder in folders]

    def _set_aside(self, oracle: Path) -> None:
        """Move validated runs of an earlier optimum, or recipe, below ``mixtures``."""
        for folder in self._validated_folders():
            seed = int(read_provenance(folder)["seed"])
            job: Job = job_of(oracle, seed, (), self._corpora)
            if job.inputs is None or not job.inputs.is_of(folder):
                place = free_folder(self.folder / MIXTURES / EARLIER / folder.name)
                place.parent.mkdir(parents=True, exist_ok=True)
                self._print(f"{folder} is of an earlier optimum: moved to {place}")
                folder.rename(place)

    def _validated_folders(self) -> list[Path]:
        return [folder for folder in sorted(self.folder.glob("seed_*")) if not is_free(folder)]
