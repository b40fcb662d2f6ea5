"""A plan of all stages: the recipe is read, checked and built once, before anything trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.corpora import Corpora
from dograph.experiments.provenance import run_inputs
from dograph.experiments.recipe.check import Recipe, check, check_again
from dograph.experiments.recipe.compose import RecipeFile, nearest
from dograph.experiments.rounds import Rounds, StageRun, read_rounds
from dograph.experiments.stage_record import Artefacts
from dograph.files.checksums import json_digest
from dograph.files.run_dir import seed_dir

PROCESSES = ("devices", "num_nodes", "strategy")
"""Arguments of the trainer that decide which processes there are; Lightning never ends them."""


@dataclass(frozen=True)
class Plan:
    """A recipe with stages, every one of them checked.

    Only what earlier stages leave comes late: ``resolve`` puts it in the place of stand-ins.
    """

    file: RecipeFile
    recipes: Mapping[str, Recipe]
    """every stage's recipe by its name, in order, with stand-ins."""
    rounds: Rounds | None

    @classmethod
    def make(cls, file: RecipeFile) -> Plan:
        """Check every stage, with stand-ins for what earlier ones leave."""
        rounds = read_rounds(file)
        recipes: dict[str, Recipe] = {}
        stand_ins: dict[str, dict[str, Any]] = {}
        for stage in file.stages:
            recipes[stage] = check(file.compose(stage, stand_ins))
            stand_ins[stage] = {"checkpoint": f"<of stage {stage}>", "weights": {"<domain>": 1.0}}
        if len({(recipe.name, recipe.runs, recipe.seed) for recipe in recipes.values()}) > 1:
            raise UserError(f"{file.path}: name, runs and seed are the same for all stages")
        return cls(file, recipes, rounds)

    @property
    def last(self) -> Recipe:
        """The recipe of the last stage."""
        return list(self.recipes.values())[-1]

    @property
    def folder(self) -> Path:
        """The folder of all stages' runs."""
        return seed_dir(self.last.runs / self.last.name, self.last.seed)

    def check_label(self, label: str) -> None:
        """Raise UserError for a run of a stage that the recipe does not have."""
        if label.partition("_round")[0] not in self.recipes:
            raise UserError(
                f"{self.file.path}: there is no stage {label!r}{nearest(label, self.file.stages)} "
                f"(there are: {', '.join(self.file.stages)})"
            )

    def check_processes(self) -> None:
        """Raise UserError for stages that would need other processes than the first has."""
        for key in PROCESSES:
            values = [recipe.arguments("trainer")[key] for recipe in self.recipes.values()]
            if any(value != values[0] for value in values):
                raise UserError(
                    f"{self.file.path}: trainer.{key} differs between stages "
                    f"({', '.join(map(str, values))}): run them one by one, with --stage NAME"
                )

    def resolve(self, run: StageRun, done: Mapping[str, Artefacts]) -> Recipe:
        """A stage's recipe, with earlier stages' artefacts in the place of stand-ins."""
        artefacts = {stage: made.values() for stage, made in done.items()}
        composition = self.file.compose(run.stage, artefacts, run.replaced)
        return check_again(self.recipes[run.stage], composition)

    def inputs(self, run: StageRun, done: Mapping[str, Artefacts], store: Store) -> dict[str, Any]:
        """All that decides the numbers of a stage's run, wherever earlier stages' files are."""
        identities = {stage: made.identity() for stage, made in done.items()}
        return run_inputs(self.file.compose(run.stage, identities, run.replaced).values, store)

    def digest(self, corpora: Corpora) -> str:
        """A digest of all that decides the experiment's numbers; it needs every corpus prepared."""
        inputs = {
            stage: run_inputs(recipe.composition.values, corpora.prepare(recipe.corpus))
            for stage, recipe in self.recipes.items()
        }
        rounds = asdict(self.rounds) if self.rounds else None
        return json_digest({"stages": inputs, "rounds": rounds})
