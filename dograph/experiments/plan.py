"""A plan of all stages: the recipe is read, checked and built once, before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store
from dograph.errors import UserError, check_range, nearest
from dograph.experiments.rank_zero import rank_zero_print
from dograph.experiments.recipe.check import Recipe, check, check_again
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.recipe.domains import check_domains, check_source_domains
from dograph.experiments.recipe.section import build, check_section
from dograph.experiments.run_inputs import RunInputs
from dograph.files.changes import flat
from dograph.files.checksums import json_digest
from dograph.files.run_dir import FINAL_CHECKPOINT, seed_dir
from dograph.reports.summary import RunSummary, read_summary

OF_STAGE = "<of stage "
"""Begins what stands for what an earlier stage leaves, until that is known."""
PROCESSES = ("devices", "num_nodes", "strategy")
"""Arguments of the trainer that decide which processes there are; Lightning never ends them."""


class Corpora:
    """The corpora of all stages, or of all jobs of a sweep, each prepared at first use."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}

    @property
    def stores(self) -> list[Store]:
        """All that were prepared."""
        return [*self._stores.values()]

    def prepare(self, recipe: Recipe) -> Store:
        """The store of a recipe's corpus; UserError if the recipe names a domain it lacks."""
        key = repr(recipe.corpus)
        if key not in self._stores:
            check_source_domains(recipe)
            self._stores[key] = prepare(recipe.corpus)
        check_domains(recipe, self._stores[key])
        return self._stores[key]


@dataclass
class Artefacts:
    """What a finished stage leaves for later ones."""

    folder: Path
    """folder of its run."""
    inputs: str
    """digest of what it was made from."""
    is_swarm: bool = False
    """whether it trained many models, and a law chose the mixture."""

    @property
    def summary(self) -> RunSummary:
        """The run's numbers."""
        return read_summary(self.folder)

    @property
    def weights(self) -> dict[str, float]:
        """The mixture that the stage chose: its mixer's average weights, by domain."""
        return {domain.name: domain.average_weight for domain in self.summary.domains}

    @property
    def losses(self) -> dict[str, float | None]:
        """Every domain's validation loss at the stage's end, in nats; None without one."""
        return {domain.name: domain.validation_loss for domain in self.summary.domains}

    def values(self) -> dict[str, Any]:
        """What ``${stages.NAME.checkpoint}``, ``.weights`` and ``.losses`` stand for."""
        return self._with_checkpoint(str(self.folder / FINAL_CHECKPOINT))

    def identity(self) -> dict[str, Any]:
        """The same for a digest: a checkpoint's path does not tell what it was made from."""
        return self._with_checkpoint(self.inputs)

    def _with_checkpoint(self, text: str) -> dict[str, Any]:
        """The weights and, unless the stage is a swarm of many models, checkpoint and losses."""
        of_run = {} if self.is_swarm else {"checkpoint": text, "losses": self.losses}
        return {"weights": self.weights, **of_run}


@dataclass(frozen=True)
class Rounds:
    """Stages that are repeated, each round starting from the mixture that the last one chose.

    In every round but the first, the first of the repeated stages draws by the average weights
    of the last of them (iterated DoReMi).
    """

    repeat: list[str]
    """the first to the last stage of a round, e.g. [reference, proxy]."""
    at_most: int = 1
    """maximum number of rounds."""
    tolerance: float = 1e-3
    """stop once no domain's weight differs more from what the round's first stage drew by."""

    def __post_init__(self) -> None:
        check_range("rounds.at_most", self.at_most, at_least=1)
        check_range("rounds.tolerance", self.tolerance, at_least=0)


class StageRun(NamedTuple):
    """One run of a stage."""

    label: str
    """name of the run and its folder: the stage's name, and its round after the first."""
    stage: str
    replaced: Mapping[str, Any] = {}
    """values that replace the recipe's in this run."""


def stand_in(stage: str, is_run: bool = True) -> dict[str, Any]:
    """What stands for the artefacts of a stage that has not run: its name.

    A swarm, which is no run, leaves weights alone.
    """
    name = f"{OF_STAGE}{stage}>"
    of_run = {"checkpoint": name, "losses": {name: 1.0}} if is_run else {}
    return {"weights": {name: 1.0}, **of_run}


def has_stand_ins(recipe: Recipe) -> bool:
    """Whether something that an earlier stage leaves is missing from a recipe."""
    mixer = flat(recipe.composition.values.get("mixer") or {})
    return any(OF_STAGE in f"{key} {value}" for key, value in mixer.items())


def weights_from(recipe: Recipe) -> str | None:
    """The earlier stage that finds the weights that a run begins by; None if they are known."""
    given = flat(recipe.composition.values.get("mixer") or {})
    named = (key.rpartition(OF_STAGE)[2] for key in given if OF_STAGE in key)
    return next((name.rstrip(">") for name in named), None)


def read_rounds(file: RecipeFile) -> Rounds | None:
    """The recipe's section ``rounds``, checked against its stages; None without one."""
    composition = file.compose()
    given = composition.values.get("rounds")
    if given is None:
        return None
    section = check_section(composition, "rounds", Rounds, given, set())
    rounds: Rounds = build(composition, "rounds", Rounds, section.as_dict())
    places = [file.stages.index(name) for name in rounds.repeat if name in file.stages]
    successive = list(range(places[0], places[0] + len(places))) if places else []
    if not places or len(places) < len(rounds.repeat) or places != successive:
        remedy = f"name stages that follow one another among {file.stages}"
        raise composition.error("rounds.repeat", f"is {rounds.repeat}: {remedy}")
    return rounds


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
            recipes[stage] = recipe = check(file.compose(stage, stand_ins))
            stand_ins[stage] = stand_in(stage, is_run=recipe.swarm is None)
        _check_swarms(file, recipes, rounds)
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
        stages = self.file.stages
        if label.partition("_round")[0] not in stages:
            unknown = f"there is no stage {label!r}{nearest(label, stages)}"
            raise UserError(f"{self.file.path}: {unknown} (there are: {', '.join(stages)})")

    def check_processes(self) -> None:
        """Raise UserError for stages that would need other processes than the first has."""
        for key in PROCESSES:
            trained = [recipe for recipe in self.recipes.values() if recipe.swarm is None]
            values = [recipe.arguments("trainer")[key] for recipe in trained]
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

    def inputs(self, run: StageRun, done: Mapping[str, Artefacts], store: Store) -> RunInputs:
        """All that decides the numbers of a stage's run, wherever earlier stages' files are."""
        identities = {stage: made.identity() for stage, made in done.items()}
        return RunInputs(self.file.compose(run.stage, identities, run.replaced).values, store)

    def digest(self, corpora: Corpora) -> str:
        """A digest of all that decides the experiment's numbers; it needs every corpus prepared."""
        inputs = {
            stage: RunInputs(recipe.composition.values, corpora.prepare(recipe)).content
            for stage, recipe in self.recipes.items()
        }
        rounds = asdict(self.rounds) if self.rounds else None
        return json_digest({"stages": inputs, "rounds": rounds})

    def schedule(self, done: Mapping[str, Artefacts]) -> Iterator[StageRun]:
        """One run after another; the next is known once ``done`` holds the one before."""
        repeated = self.rounds.repeat if self.rounds else []
        for stage in self.recipes:
            if stage not in repeated:
                yield StageRun(stage, stage)
            elif self.rounds and stage == repeated[0]:
                yield from _repeat(self.rounds, done)


def _check_swarms(file: RecipeFile, recipes: Mapping[str, Recipe], rounds: Rounds | None) -> None:
    """Raise UserError for a swarm that is the last stage, repeated, or behind a training."""
    stages = [*recipes]
    for place, (stage, recipe) in enumerate(recipes.items()):
        if recipe.swarm is None:
            continue
        where = f"{file.path}: stages.{stage} is a swarm"
        if stage == stages[-1]:
            raise UserError(
                f"{where}, and no stage trains on what its fit proposes: add one, e.g. main: "
                f"{{mixer: {{class_path: dograph.mixers.Fixed, init_args: {{weights: "
                f"'${{stages.{stage}.weights}}'}}}}}}"
            )
        if rounds and stage in rounds.repeat:
            raise UserError(f"{where}: leave it out of rounds.repeat, which repeats single runs")
        # Processes that Lightning started for a training would each run the swarm.
        if earlier := [name for name in stages[:place] if recipes[name].swarm is None]:
            raise UserError(f"{where}: put it before stage {earlier[0]}: swarms come first")


def _repeat(rounds: Rounds, done: Mapping[str, Artefacts]) -> Iterator[StageRun]:
    first, last = rounds.repeat[0], rounds.repeat[-1]
    for count in range(1, rounds.at_most + 1):
        replaced: dict[str, Any] = {}
        if count > 1:
            arguments = {"weights": done[last].weights}
            replaced = {"mixer": {"class_path": "dograph.mixers.Fixed", "init_args": arguments}}
        for stage in rounds.repeat:
            label = stage if count == 1 else f"{stage}_round{count}"
            yield StageRun(label, stage, replaced if stage == first else {})
        moved = largest_move(done[first].weights, done[last].weights)
        if rounds.at_most > 1:
            rank_zero_print(f"round {count}: the largest move of a weight is {moved:.4f}")
        if moved <= rounds.tolerance:
            return


def largest_move(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Largest difference of a domain's weight."""
    return max(abs(after[name] - before[name]) for name in after)
