"""A recipe's stages (reference → proxy → main): each a run of its own, re-used while it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from dograph.data.corpus.prepare import prepare
from dograph.errors import UserError
from dograph.experiments.provenance import run_inputs
from dograph.experiments.recipe.check import Recipe, check, check_section, located
from dograph.experiments.recipe.compose import compose, nearest, stage_names
from dograph.experiments.run import check_buildable, train
from dograph.experiments.run_folder import check_inside, claimed, is_first_rank
from dograph.experiments.stage_record import Artefacts, StageRecord, find_run
from dograph.files.atomic import write_json
from dograph.files.checksums import facts_digest
from dograph.files.lock import exclusive
from dograph.files.run_dir import RECIPE, SUMMARY
from dograph.reports.summary import print_costs, print_summary, total_cost
from dograph.training.checkpoint import newest_sound
from dograph.training.checkpointing import Interrupted, remove_partial

PROCESSES = ("devices", "num_nodes", "strategy")
"""Arguments of the trainer that say which processes there are; Lightning keeps them to the end."""


@dataclass(frozen=True)
class Rounds:
    """Stages that are repeated, each round starting from the mixture that the last one found.

    In every round but the first, the first of the repeated stages draws by the average weights
    of the last of them (iterated DoReMi).
    """

    repeat: list[str]
    """the first to the last stage of a round, e.g. [reference, proxy]."""
    at_most: int = 1
    """rounds."""
    tolerance: float = 1e-3
    """stop once no domain's weight differs more from what the round's first stage drew by."""

    def __post_init__(self) -> None:
        if self.at_most < 1:
            raise UserError(f"rounds.at_most is {self.at_most}: it must be ≥ 1")
        if not self.tolerance >= 0:
            raise UserError(f"rounds.tolerance is {self.tolerance}: it must be ≥ 0")


@dataclass
class Experiment:
    """A recipe with stages; running it does what is missing.

    Args:
        path: the recipe.
        overrides: ``key=value``, the last word.

    Attributes:
        names: the recipe's stages, in order.
        done: artefacts by stage name; those of the last round for a repeated stage.
    """

    path: Path
    overrides: Sequence[str] = ()
    console: Console = field(default_factory=Console)
    names: list[str] = field(init=False)
    done: dict[str, Artefacts] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.names = stage_names(self.path, self.overrides)

    def check(self) -> dict[str, Recipe]:
        """Checks every stage before the first one trains, with stand-ins for what is not there yet.

        Raises:
            UserError: naming file and key.
        """
        self.rounds()
        recipes: dict[str, Recipe] = {}
        standing: dict[str, dict[str, Any]] = {}
        for name in self.names:
            recipes[name] = check(compose(self.path, self.overrides, name, standing))
            check_buildable(recipes[name])
            standing[name] = {"checkpoint": f"<of stage {name}>", "weights": {"<domain>": 1.0}}
        if len({(recipe.name, recipe.runs, recipe.seed) for recipe in recipes.values()}) > 1:
            raise UserError(f"{self.path}: name, runs and seed are the same for all stages")
        return recipes

    def rounds(self) -> Rounds | None:
        """The recipe's section ``rounds``; None without one.

        Raises:
            UserError: if it does not fit the stages.
        """
        composition = compose(self.path, self.overrides)
        given = composition.values.get("rounds")
        if given is None:
            return None
        section = check_section(composition, "rounds", Rounds, given, set())
        rounds: Rounds = located(composition, "rounds", Rounds, section.as_dict())
        places = [self.names.index(name) for name in rounds.repeat if name in self.names]
        successive = list(range(places[0], places[0] + len(places))) if places else []
        if not places or len(places) < len(rounds.repeat) or places != successive:
            raise UserError(
                f"{composition.origin('rounds.repeat')}: rounds.repeat is {rounds.repeat}: name "
                f"stages that follow one another among {self.names}"
            )
        return rounds

    def digest(self) -> str:
        """A name for what decides the experiment's numbers; prepares the corpus if need be."""
        recipes, rounds = self.check(), self.rounds()
        inputs = {
            name: run_inputs(recipe.composition.values, prepare(recipe.corpus))
            for name, recipe in recipes.items()
        }
        return facts_digest({"stages": inputs, "rounds": asdict(rounds) if rounds else None})

    def run(self, only: str | None = None) -> dict[str, Artefacts]:
        """Runs the stages that are missing, or one of them; one call at a time.

        Args:
            only: name of the one stage to run; those before it must be finished.

        Returns:
            the finished stages' artefacts by name.

        Raises:
            UserError: for mistakes, before any training; what only the corpus tells (a domain's
                name) before the training of its stage.
            Interrupted: on SIGINT or SIGTERM; running again goes on.
        """
        if only is not None and only.partition("_round")[0] not in self.names:
            raise UserError(
                f"{self.path}: there is no stage {only!r}{nearest(only, self.names)} (there are: "
                f"{', '.join(self.names)})"
            )
        recipes = list(self.check().values())
        if only is None:
            self._check_processes(recipes)
        folder = recipes[-1].runs / recipes[-1].name / f"seed_{recipes[-1].seed}"
        if (folder / RECIPE).exists():
            raise UserError(
                f"{folder} holds a run of a recipe without stages: choose another name or seed"
            )
        digest = self.digest()  # now: the recipe's file may change while it runs
        # The other ranks only come to be while the first has the lock.
        first = is_first_rank()
        waiting = f"another call is running in {folder}; waiting for it"
        lock = exclusive(folder / ".lock", lambda: self._say(waiting)) if first else nullcontext()
        with lock:
            ran = self._run(folder, only)
            if first:
                self._conclude(folder, ran, recipes[-1].runs, digest if only is None else None)
        return self.done

    def _run(self, folder: Path, only: str | None) -> dict[str, Artefacts]:
        ran: dict[str, Artefacts] = {}
        for label, name, above in self._schedule():
            self.done[name] = ran[label] = self._stage(folder, label, name, above, only)
            if label == only:
                return ran
        if only is not None:
            raise UserError(f"{self.path}: the rounds end without a stage {only!r}")
        return ran

    def _conclude(
        self, folder: Path, ran: Mapping[str, Artefacts], runs: Path, digest: str | None
    ) -> None:
        """Prints the last stage's end and all costs; a whole experiment's go to a file."""
        summaries = {label: made.summary for label, made in ran.items()}
        last = list(ran)[-1]
        print_summary(summaries[last], ran[last].folder, runs, self.console)
        print_costs(summaries, self.console)
        if digest is not None:
            record = {**with_costs(ran), "folder": ran[last].folder.name, "digest": digest}
            write_json(folder / SUMMARY, record)

    def _check_processes(self, recipes: Sequence[Recipe]) -> None:
        """Raises UserError for stages that would need other processes than the first has."""
        for key in PROCESSES:
            values = [recipe.arguments("trainer")[key] for recipe in recipes]
            if any(value != values[0] for value in values):
                raise UserError(
                    f"{self.path}: trainer.{key} differs between stages "
                    f"({', '.join(map(str, values))}): run them one by one, with --stage NAME"
                )

    def _schedule(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(name of the run, of the stage, values above the recipe's) of one stage after another."""
        rounds = self.rounds()
        repeated = rounds.repeat if rounds else []
        for name in self.names:
            if name not in repeated:
                yield name, name, {}
            elif rounds is not None and name == repeated[0]:
                yield from self._rounds(rounds)

    def _rounds(self, rounds: Rounds) -> Iterator[tuple[str, str, dict[str, Any]]]:
        first, last = rounds.repeat[0], rounds.repeat[-1]
        for count in range(1, rounds.at_most + 1):
            above: dict[str, Any] = {}
            if count > 1:
                weights = self.done[last].weights
                fixed = {"class_path": "dograph.mixers.Fixed", "init_args": {"weights": weights}}
                above = {"mixer": fixed}
            for name in rounds.repeat:
                label = name if count == 1 else f"{name}_round{count}"
                yield label, name, above if name == first else {}
            moved = largest_move(self.done[first].weights, self.done[last].weights)
            if rounds.at_most > 1:
                self._say(f"round {count}: the largest move of a weight is {moved:.4f}")
            if moved <= rounds.tolerance:
                return

    def _stage(
        self, experiment: Path, label: str, name: str, above: dict[str, Any], only: str | None
    ) -> Artefacts:
        """Uses a finished run of a stage, goes on with an interrupted one, or makes a new one."""
        by_name = {stage: made.by_name() for stage, made in self.done.items()}
        recipe = check(compose(self.path, self.overrides, name, by_name, above))
        check_buildable(recipe)
        store = prepare(recipe.corpus)
        # Paths say nothing of what is in a checkpoint; what it was made from does.
        digests = {stage: made.by_name(made.inputs) for stage, made in self.done.items()}
        composed = compose(self.path, self.overrides, name, digests, above)
        inputs = run_inputs(composed.values, store)
        digest = facts_digest(inputs)
        found = find_run(experiment, label, digest, inputs)
        because = f" (changed: {found.changed})" if found.changed else ""
        if found.finished:
            self._say(f"stage {label}: finished before, used again: {found.folder}")
            return Artefacts(found.folder, digest)
        if only not in (None, label):
            raise UserError(
                f"stage {label} is not finished{because}: run it first, with --stage {label}, or "
                "the recipe without --stage"
            )
        steps = recipe.arguments("trainer")["max_steps"]
        checkpoint = newest_sound(found.folder, below=steps) if found.begun else None
        if checkpoint is not None:
            self._say(f"stage {label}: goes on from {checkpoint}")
        else:
            self._say(f"stage {label}: runs in {found.folder}{because}")
        mark = StageRecord(found.folder, {"stage": label, "digest": digest, **inputs})
        check_inside(found.folder)
        try:
            with claimed(found.folder):
                remove_partial(found.folder)
                summary = train(recipe, store, found.folder, checkpoint, [mark], stops=True)
        except Interrupted as interruption:
            if interruption.finished and is_first_rank():
                mark.write(finished=True)
            raise
        if summary is not None:
            mark.write(finished=True)
        return Artefacts(found.folder, digest)

    @rank_zero_only
    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def largest_move(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Largest difference of a domain's weight."""
    return max(abs(after[name] - before[name]) for name in after)


def with_costs(stages: Mapping[str, Artefacts]) -> dict[str, Any]:
    """The last stage's summary in JSON's types, with what every stage cost and all together."""
    summaries = {label: made.summary for label, made in stages.items()}
    by_stage = [
        {"stage": label, "folder": stages[label].folder.name, **summary.cost}
        for label, summary in summaries.items()
    ]
    last = list(summaries.values())[-1]
    return {**last.as_json(), "cost": {"stages": by_stage, "total": total_cost(summaries.values())}}
