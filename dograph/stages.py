"""A recipe's stages (reference → proxy → main): each a run of its own, re-used while it fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from dograph.composition import Composition, compose, stage_names
from dograph.corpus.atomic import read_json, write_json
from dograph.corpus.prepare import prepare
from dograph.errors import UserError
from dograph.provenance import version_of
from dograph.recipe import Recipe, check, check_section, located
from dograph.report.summary import (
    FILE_NAME,
    RunSummary,
    print_costs,
    print_summary,
    read_summary,
    total_cost,
)
from dograph.run import FINAL_CHECKPOINT, steps_done, train

RECORD = "stage.json"
"""In a stage's folder: its inputs, and whether it is finished."""
WITHOUT_EFFECT = ("name", "runs", "report")
"""Sections of a recipe that change nothing a later stage could notice."""


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
class Artefacts:
    """What a finished stage leaves to later ones.

    Attributes:
        folder: of its run.
        inputs: digest of what it was made from.
    """

    folder: Path
    inputs: str

    @property
    def summary(self) -> RunSummary:
        """The run's numbers."""
        return read_summary(self.folder)

    @property
    def weights(self) -> dict[str, float]:
        """The mixture that it found: its mixer's average weights, by domain."""
        return {domain.name: domain.average_weight for domain in self.summary.domains}

    def by_name(self, checkpoint: str | None = None) -> dict[str, Any]:
        """What ``${stages.NAME.checkpoint}`` and ``${stages.NAME.weights}`` stand for."""
        path = str(self.folder / FINAL_CHECKPOINT) if checkpoint is None else checkpoint
        return {"checkpoint": path, "weights": self.weights}


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

    def run(self, only: str | None = None) -> dict[str, Artefacts]:
        """Runs the stages that are missing, or one of them.

        Args:
            only: name of the one stage to run; those before it must be finished.

        Returns:
            the finished stages' artefacts by name.

        Raises:
            UserError: for mistakes, before any training.
            Interrupted: on SIGINT or SIGTERM; running again goes on.
        """
        if only is not None and only not in self.names:
            raise UserError(f"{self.path}: there is no stage {only!r}, but {self.names}")
        last = next(reversed(self.check().values()))
        ran: dict[str, Artefacts] = {}
        for label, name, above in self._schedule():
            self.done[name] = ran[label] = self._stage(label, name, above, only)
            if name == only:
                break
        folder = last.runs / last.name / f"seed_{last.seed}"
        summaries = {label: made.summary for label, made in ran.items()}
        print_summary(summaries[label], ran[label].folder, last.runs, self.console)
        print_costs(summaries, self.console)
        if only is None:
            write_json(folder / FILE_NAME, with_costs(summaries))
        return self.done

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

    def _stage(self, label: str, name: str, above: dict[str, Any], only: str | None) -> Artefacts:
        """Uses a finished run of a stage, goes on with an interrupted one, or makes a new one."""
        by_name = {stage: made.by_name() for stage, made in self.done.items()}
        recipe = check(compose(self.path, self.overrides, name, by_name, above))
        store = prepare(recipe.corpus)
        # Paths say nothing of what is in a checkpoint; what it was made from does.
        digests = {stage: made.by_name(made.inputs) for stage, made in self.done.items()}
        values = relevant(compose(self.path, self.overrides, name, digests, above))
        inputs = {
            "values": values,
            "corpus": store.fingerprint,
            "dograph": version_of("dograph"),
        }
        digest = digest_of(inputs)
        experiment = recipe.runs / recipe.name / f"seed_{recipe.seed}"
        folder, record, changed = self._find(experiment, label, digest, inputs)
        if record.get("finished"):
            self._say(f"stage {label}: finished before, used again: {folder}")
            return Artefacts(folder, digest)
        if only not in (None, name):
            raise UserError(
                f"stage {label} is not finished (changed since: {changed or 'nothing'}): run the "
                "recipe without --stage, or that stage first"
            )
        checkpoint = newest_unfinished(folder, recipe) if record else None
        if checkpoint is not None:
            self._say(f"stage {label}: goes on from {checkpoint}")
        else:
            because = f" (changed: {changed})" if changed else ""
            self._say(f"stage {label}: runs in {folder}{because}")
        mark = StageRecord(folder / RECORD, {"stage": label, "digest": digest, **inputs})
        summary = train(recipe, folder, checkpoint, [mark])
        if summary is not None:
            mark.write(finished=True)
        return Artefacts(folder, digest)

    def _find(
        self, experiment: Path, label: str, digest: str, inputs: dict[str, Any]
    ) -> tuple[Path, dict[str, Any], str]:
        """(folder, record, changed keys): the stage's run with these inputs, or a free folder."""
        changed, count, folder = "", 0, experiment / label
        while folder.exists():
            record = read_json(folder / RECORD) or {}
            if record.get("stage") == label and record["digest"] == digest:
                if record["finished"] or newest_checkpoints(folder):
                    return folder, record, ""
            elif record.get("stage") == label:
                changed = ", ".join(differences(record, inputs))
            count += 1
            folder = experiment / f"{label}_{count}"
        return folder, {}, changed

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class StageRecord(Callback):
    """Writes what a stage is made from as its training begins.

    Args:
        path: of the record.
        content: stage, digest and inputs.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the record on rank zero."""
        if trainer.is_global_zero:
            self.write(finished=False)

    def write(self, finished: bool) -> None:
        """Writes the record, whole or not at all."""
        write_json(self.path, {**self.content, "finished": finished})


def relevant(composition: Composition) -> dict[str, Any]:
    """A stage's values without those that later stages cannot notice."""
    return {key: value for key, value in composition.values.items() if key not in WITHOUT_EFFECT}


def digest_of(inputs: Mapping[str, Any]) -> str:
    """A name for a stage's inputs: equal for equal ones."""
    text = json.dumps(inputs, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def differences(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which a record differs from a stage's inputs."""
    before, now = flat(record), flat(inputs)
    changed = [
        key
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key) and key not in ("stage", "digest", "finished")
    ]
    return [key.removeprefix("values.") for key in changed]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def largest_move(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Largest difference of a domain's weight."""
    return max(abs(after[name] - before[name]) for name in after)


def newest_checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, newest first."""
    found = (folder / "checkpoints").glob("*.ckpt")
    return sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)


def newest_unfinished(folder: Path, recipe: Recipe) -> Path | None:
    """The newest checkpoint from which there are steps left; None without one."""
    steps = recipe.arguments("trainer")["max_steps"]
    return next((file for file in newest_checkpoints(folder) if steps_done(file) < steps), None)


def with_costs(stages: Mapping[str, RunSummary]) -> dict[str, Any]:
    """The last stage's summary in JSON's types, with what every stage cost and all together."""
    by_stage = [{"stage": label, **summary.cost} for label, summary in stages.items()]
    last = list(stages.values())[-1]
    return {**last.as_json(), "cost": {"stages": by_stage, "total": total_cost(stages.values())}}
