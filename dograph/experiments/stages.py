"""Runs a plan's stages (reference → proxy → main), and uses finished ones again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.open_run import LEFT, claimed, is_free, open_run, read_mapping
from dograph.experiments.plan import Artefacts, Corpora, Plan, StageRun
from dograph.experiments.rank_zero import is_rank_zero, rank_zero_print
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.compose import flat
from dograph.experiments.run import train
from dograph.files.atomic import write_json
from dograph.files.checksums import json_digest
from dograph.files.run_dir import RECIPE, STAGE, SUMMARY
from dograph.reports.summary import print_costs, print_summary, total_cost
from dograph.training.checkpoint_writer import Interrupted


class Experiment:
    """Runs the stages of a plan that are missing."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.done: dict[str, Artefacts] = {}
        """artefacts by stage; those of the last round for a repeated stage."""
        self._corpora = Corpora()

    def run(self, only: str | None = None) -> dict[str, Artefacts]:
        """Run the stages that are missing, or one of them; one call at a time.

        Args:
            only: label of the one run to make; those before it must be finished.

        Raises:
            UserError: for mistakes, before any training; what only the corpus tells (a domain's
                name) before the training of its stage.
            Interrupted: on SIGINT or SIGTERM; running again resumes.
        """
        if only is not None:
            self.plan.check_label(only)
        else:
            self.plan.check_processes()
        folder = self.plan.folder
        if (folder / RECIPE).exists():
            raise UserError(
                f"{folder} holds a run of a recipe without stages: choose another name or seed"
            )
        digest = self.plan.digest(self._corpora)
        waiting = f"another call is running in {folder}; waiting for it"
        with claimed(folder, lambda: rank_zero_print(waiting)):
            ran = self._run_missing(only)
            if is_rank_zero():
                conclude(ran, self.plan, digest if only is None else None)
        return self.done

    def _run_missing(self, only: str | None) -> dict[str, Artefacts]:
        ran: dict[str, Artefacts] = {}
        for run in self.plan.schedule(self.done):
            self.done[run.stage] = ran[run.label] = self._artefacts(run, only)
            if run.label == only:
                return ran
        if only is not None:
            raise UserError(f"{self.plan.file.path}: the rounds end without a stage {only!r}")
        return ran

    def _artefacts(self, run: StageRun, only: str | None) -> Artefacts:
        """Use a stage's finished run, resume an interrupted one, or make a new one."""
        recipe = self.plan.resolve(run, self.done)
        store = self._corpora.prepare(recipe)
        inputs = self.plan.inputs(run, self.done, store)
        digest = json_digest(inputs)
        folder = find_folder(self.plan.folder, run.label, digest, inputs)
        made = Artefacts(folder.path, digest)
        if folder.finished:
            rank_zero_print(f"stage {run.label}: finished before, used again: {folder.path}")
            return made
        if only not in (None, run.label):
            raise UserError(
                f"stage {run.label} is not finished{folder.reason}: run it first, with --stage "
                f"{run.label}, or the recipe without --stage"
            )
        train_stage(recipe, store, folder, {"stage": run.label, "digest": digest, **inputs})
        return made


def train_stage(recipe: Recipe, store: Store, folder: StageFolder, content: dict[str, Any]) -> None:
    """Train a stage, resuming an interrupted run; record ``content`` and that it is finished."""
    label, record = content["stage"], StageRecord(folder.path, content)
    with open_run(folder.path, recipe.steps) as checkpoint:
        begins = f"runs in {folder.path}{folder.reason}"
        rank_zero_print(f"stage {label}: {f'resumes from {checkpoint}' if checkpoint else begins}")
        try:
            summary = train(recipe, store, folder.path, checkpoint, [record], stops=True)
        except Interrupted as interruption:
            if interruption.finished and is_rank_zero():
                record.write(finished=True)
            raise
        if summary is not None:  # on rank zero
            record.write(finished=True)


def conclude(ran: Mapping[str, Artefacts], plan: Plan, digest: str | None) -> None:
    """Print the last run's end and all costs, and write a whole experiment's summary.

    Args:
        ran: artefacts by the runs' labels.
        plan: what was run.
        digest: digest of the whole experiment; None for a part of it, which gets no summary.
    """
    summaries = {label: made.summary for label, made in ran.items()}
    last, summary = list(ran.values())[-1], list(summaries.values())[-1]
    print_summary(summary, last.folder, plan.last.runs)
    print_costs(summaries)
    if digest is not None:
        by_stage = [
            {"stage": label, "folder": ran[label].folder.name, **each.cost}
            for label, each in summaries.items()
        ]
        cost = {"stages": by_stage, "total": total_cost(summaries.values())}
        content = {**summary.as_json(), "cost": cost, "folder": last.folder.name, "digest": digest}
        write_json(plan.folder / SUMMARY, content)


class StageFolder(NamedTuple):
    """Where a stage runs, or ran."""

    path: Path
    """folder of a run with the same inputs, or a free one."""
    finished: bool = False
    """whether everything that the run leaves is there."""
    reason: str = ""
    """why no earlier run serves, for a message: keys of inputs, or files that are gone."""


def find_folder(
    experiment: Path, label: str, digest: str, inputs: Mapping[str, Any]
) -> StageFolder:
    """Look for a stage's run with the same inputs, in ``label``, ``label_1`` and so on."""
    path, count, reason = experiment / label, 0, ""
    while not is_free(path):
        record = read_mapping(path / STAGE)
        if record.get("stage") == label and record.get("digest") == digest:
            gone = [name for name in LEFT if not (path / name).exists()]
            finished = bool(record.get("finished"))
            if not finished or not gone:  # an interrupted run is resumed, or begins again
                return StageFolder(path, finished)
            reason = f" (changed: {', '.join(gone)} gone from {path})"
        elif record.get("stage") == label:
            reason = f" (changed: {', '.join(differences(record, inputs))})"
        count += 1
        path = experiment / f"{label}_{count}"
    return StageFolder(path, reason=reason)


class StageRecord(Callback):
    """Writes a stage's name, digest and inputs when its training begins."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.path, self.content = folder / STAGE, content

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record on rank zero."""
        if trainer.is_global_zero:
            self.write(finished=False)

    def write(self, finished: bool) -> None:
        """Write the record, whole or not at all."""
        write_json(self.path, {**self.content, "finished": finished})


def differences(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which a record differs from a stage's inputs."""
    before, now = flat(record), flat(inputs)
    keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    added = ("stage", "digest", "finished")
    return [key.removeprefix("values.") for key in keys if key not in added]
