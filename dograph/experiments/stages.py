"""Runs a plan's stages (reference → proxy → main), and uses finished ones again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.errors import UserError
from dograph.experiments.open_run import LEFT, claimed, is_free, open_run
from dograph.experiments.plan import Artefacts, Corpora, Plan, StageRun
from dograph.experiments.rank_zero import is_rank_zero, rank_zero_print
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.resume import note_packages
from dograph.experiments.run import train
from dograph.experiments.run_inputs import RunInputs, input_changes, stage_inputs
from dograph.files.atomic import read_mapping, write_json
from dograph.files.changes import midway_changes
from dograph.files.run_dir import FIT, PROVENANCE, RECIPE, STAGE, SUMMARY
from dograph.reports.summary import print_costs, print_summary, total_cost
from dograph.training.checkpoint_writer import Interrupted

LEFT_BY_SWARM = (SUMMARY, FIT)
"""Files that a finished swarm leaves."""


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
        check_swarms(self.plan, self._corpora)
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
        inputs = self.plan.inputs(run, self.done, self._corpora.prepare(recipe))
        left = LEFT if recipe.swarm is None else LEFT_BY_SWARM
        folder = find_folder(self.plan.folder, run.label, inputs, left)
        made = Artefacts(folder.path, folder.digest, recipe.swarm is not None)
        if folder.finished:
            rank_zero_print(f"stage {run.label}: finished before, used again: {folder.path}")
            provenance = read_mapping(folder.path / PROVENANCE)
            if (changed := midway_changes(folder.path, provenance)) is not None:
                rank_zero_print(f"stage {run.label}: its recipe changed midway: {changed}")
            return made
        if only not in (None, run.label):
            raise UserError(
                f"stage {run.label} is not finished{folder.reason}: run it first, with --stage "
                f"{run.label}, or the recipe without --stage"
            )
        if recipe.swarm is None:
            train_stage(run.label, recipe, inputs, folder)
        else:
            self._run_swarm(run.label, recipe, inputs, folder)
        return made

    def _run_swarm(
        self, label: str, recipe: Recipe, inputs: RunInputs, folder: StageFolder
    ) -> None:
        """Run a swarm and its fit; record the inputs and that it is finished."""
        from dograph.experiments.swarm_stage import run_swarm

        if not is_rank_zero():
            raise UserError(
                f"stage {label} is a swarm, whose runs are processes of their own: run it first, "
                f"in one process, with --stage {label}"
            )
        rank_zero_print(f"stage {label}: runs in {folder.path}{folder.reason}")
        record = StageRecord(
            folder.path, {"stage": label, "digest": folder.digest, **inputs.content}
        )
        with open_run(folder.path, recipe.steps):
            record.write(finished=False)
            run_swarm(label, recipe, inputs, folder.path, self._corpora)
            record.write(finished=True)


def check_swarms(plan: Plan, corpora: Corpora | None = None) -> None:
    """Raise UserError for fits that cannot be made.

    All swarms are checked by their sources before a corpus is prepared; with ``corpora``, which
    tell sizes, again after that.
    """
    swarms = [recipe for recipe in plan.recipes.values() if recipe.swarm is not None]
    if not swarms:
        return
    from dograph.experiments.swarm_stage import check_swarm, check_swarm_early

    for recipe in swarms:
        check_swarm_early(recipe)
    if corpora is not None:
        for recipe in swarms:
            check_swarm(recipe, corpora)


def train_stage(label: str, recipe: Recipe, inputs: RunInputs, folder: StageFolder) -> None:
    """Train a stage, resuming an interrupted run; record its inputs and that it is finished."""
    content = {"stage": label, "digest": folder.digest, **inputs.content}
    record = StageRecord(folder.path, content)
    with open_run(folder.path, recipe.steps) as checkpoint:
        begins = f"runs in {folder.path}{folder.reason}"
        rank_zero_print(f"stage {label}: {f'resumes from {checkpoint}' if checkpoint else begins}")
        try:
            if checkpoint:
                note_packages(folder.path)
            summary = train(
                recipe, inputs.store, folder.path, checkpoint, [record], stops=True, inputs=inputs
            )
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
    if not last.is_swarm:  # which said what it found
        print_summary(summary, last.folder, plan.last.runs)
    print_costs(summaries)
    if digest is not None:
        by_stage = [
            {"stage": label, "folder": ran[label].folder.name, **each.cost}
            for label, each in summaries.items()
        ]
        cost = {"stages": by_stage, "total": total_cost(summaries.values())}
        content = {**summary.as_json(), "cost": cost, "folder": last.folder.name, "digest": digest}
        fits = {
            label: read_mapping(made.folder / SUMMARY).get("fit")
            for label, made in ran.items()
            if made.is_swarm
        }
        write_json(plan.folder / SUMMARY, {**content, **({"fits": fits} if fits else {})})


class StageFolder(NamedTuple):
    """Where a stage runs, or ran."""

    path: Path
    """folder of a run with the same inputs, or a free one."""
    digest: str
    """digest of the inputs, as the run recorded it: later stages' inputs hold it."""
    finished: bool = False
    """whether everything that the run leaves is there."""
    reason: str = ""
    """why no earlier run serves, for a message: keys of inputs, or files that are gone."""


def find_folder(
    experiment: Path, label: str, inputs: RunInputs, left: Sequence[str] = LEFT
) -> StageFolder:
    """Look for a stage's run with the same inputs, in ``label``, ``label_1`` and so on.

    A finished one has all the files that it ``left``.
    """
    path, count, reason = experiment / label, 0, ""
    while not is_free(path):
        record = read_mapping(path / STAGE)
        if record.get("stage") == label:
            changes = input_changes(stage_inputs(record), inputs.content)
            gone = [name for name in left if not (path / name).exists()]
            finished = bool(record.get("finished"))
            if not changes and not (finished and gone):  # interrupted: resumed, or begins again
                return StageFolder(path, str(record.get("digest")), finished)
            if changes:
                kept = "" if finished else f"; {path} stays unfinished"
                reason = f" (changed: {', '.join(changes)}{kept})"
            else:
                reason = f" (changed: {', '.join(gone)} gone from {path})"
        count += 1
        path = experiment / f"{label}_{count}"
    return StageFolder(path, inputs.digest, reason=reason)


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
