"""What a stage was made from and what it leaves: how a finished stage is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.experiments.recipe.compose import flat
from dograph.experiments.run_folder import is_free, read_mapping
from dograph.files.atomic import write_json
from dograph.files.run_dir import FINAL_CHECKPOINT, STAGE, SUMMARY
from dograph.reports.summary import RunSummary, read_summary

LEFT = (SUMMARY, str(FINAL_CHECKPOINT))
"""Files that a finished stage leaves for later ones."""


@dataclass
class Artefacts:
    """What a finished stage leaves for later ones."""

    folder: Path
    """folder of its run."""
    inputs: str
    """digest of what it was made from."""

    @property
    def summary(self) -> RunSummary:
        """The run's numbers."""
        return read_summary(self.folder)

    @property
    def weights(self) -> dict[str, float]:
        """The mixture that the stage chose: its mixer's average weights, by domain."""
        return {domain.name: domain.average_weight for domain in self.summary.domains}

    def values(self) -> dict[str, Any]:
        """What ``${stages.NAME.checkpoint}`` and ``${stages.NAME.weights}`` stand for."""
        return {"checkpoint": str(self.folder / FINAL_CHECKPOINT), "weights": self.weights}

    def identity(self) -> dict[str, Any]:
        """The same for a digest: a checkpoint's path does not tell what it was made from."""
        return {"checkpoint": self.inputs, "weights": self.weights}


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
    changed = [
        key
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key) and key not in ("stage", "digest", "finished")
    ]
    return [key.removeprefix("values.") for key in changed]
