"""What a stage was made from and what it leaves: how a finished one is known again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.experiments.recipe.compose import flat
from dograph.experiments.run_folder import is_free
from dograph.files.atomic import read_json, write_json
from dograph.files.run_dir import FINAL_CHECKPOINT, STAGE, SUMMARY
from dograph.reports.summary import RunSummary, read_summary

LEAVES = (SUMMARY, str(FINAL_CHECKPOINT))
"""What a finished stage leaves there for later ones."""


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
class Found:
    """Where a stage runs, or ran.

    Attributes:
        folder: of a run with just these inputs, or a free one.
        finished: whether all that the run leaves is there.
        begun: whether there is something to go on with.
        changed: why an earlier run does not serve: keys of inputs, or files that are gone.
    """

    folder: Path
    finished: bool = False
    begun: bool = False
    changed: str = ""


def find_run(experiment: Path, label: str, digest: str, inputs: Mapping[str, Any]) -> Found:
    """Looks for a stage's run with the same inputs, in ``label``, ``label_1`` and so on.

    Args:
        experiment: folder of all stages.
        label: of the stage.
        digest: of the inputs.
        inputs: to say what has changed.
    """
    found, count = Found(experiment / label), 0
    while not is_free(found.folder):
        record = read_record(found.folder)
        if record.get("stage") == label and record.get("digest") == digest:
            gone = [name for name in LEAVES if not (found.folder / name).exists()]
            finished = bool(record.get("finished"))
            if not finished or not gone:  # one that was killed goes on, or begins anew
                return Found(found.folder, finished, not finished)
            found.changed = f"{', '.join(gone)} gone from {found.folder}"
        elif record.get("stage") == label:
            found.changed = ", ".join(differences(record, inputs))
        count += 1
        found.folder = experiment / f"{label}_{count}"
    return found


def read_record(folder: Path) -> dict[str, Any]:
    """A stage's record; empty if there is none that can be read."""
    try:
        record = read_json(folder / STAGE)
    except (ValueError, OSError):
        return {}
    return record if isinstance(record, dict) else {}


class StageRecord(Callback):
    """Writes what a stage is made from as its training begins.

    Args:
        folder: of the stage's run.
        content: stage, digest and inputs.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.path, self.content = folder / STAGE, content

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the record on rank zero."""
        if trainer.is_global_zero:
            self.write(finished=False)

    def write(self, finished: bool) -> None:
        """Writes the record, whole or not at all."""
        write_json(self.path, {**self.content, "finished": finished})


def differences(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which a record differs from a stage's inputs."""
    before, now = flat(record), flat(inputs)
    changed = [
        key
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key) and key not in ("stage", "digest", "finished")
    ]
    return [key.removeprefix("values.") for key in changed]
