"""Finished runs on disk: what was scored, under which conditions, at which cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dograph.composition import load_yaml
from dograph.corpus.atomic import read_json
from dograph.errors import UserError
from dograph.evaluation.task_results import read_results, suite_means
from dograph.provenance import FACTS, RECIPE, read_facts
from dograph.report.history import HISTORY, MixtureHistory
from dograph.report.summary import FILE_NAME, RunSummary, read_summary
from dograph.stage_record import RECORD

DEEPEST = 3
"""Folders below a given one in which runs are looked for: all runs, a recipe's, a seed's."""
OF_VALIDATION = ("context", "validation_sequences")
"""Keys of a recipe's data that decide, with the corpus, what is validated on."""


@dataclass(frozen=True)
class ComparedRun:
    """A finished run, or a finished experiment by its last stage.

    Attributes:
        folder: of the run, or of the experiment.
        final: of the run, or of the experiment's last stage.
        stages: (name, folder) of what came before ``final``, in order.
    """

    folder: Path
    final: Path
    stages: tuple[tuple[str, Path], ...] = ()

    @property
    def method(self) -> str:
        """The recipe's name."""
        return self.folder.resolve().parent.name

    @cached_property
    def seed(self) -> int:
        """Of everything random."""
        return int(self.facts["seed"])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Where the run came from."""
        return read_facts(self.final)

    @cached_property
    def summary(self) -> RunSummary:
        """The run's numbers; of an experiment, the last stage's."""
        return read_summary(self.final)

    @cached_property
    def history(self) -> MixtureHistory:
        """Validations and weights over the run."""
        return MixtureHistory.read(self.final)

    @cached_property
    def losses(self) -> dict[str, float]:
        """Final validation loss in nats a token, by domain.

        Raises:
            UserError: if the run ended without a validation, or with one that is not finite.
        """
        domains = self.summary.domains
        losses = {d.name: d.validation_loss for d in domains if d.validation_loss is not None}
        if len(losses) < len(domains) or not losses:
            raise UserError(
                f"{self.final}: the run ended without a finite validation loss for every domain; "
                "leave it out, or run it again with trainer.val_check_interval set"
            )
        return losses

    @property
    def mean_loss(self) -> float:
        """Mean over domains of the final validation loss."""
        return sum(self.losses.values()) / len(self.losses)

    @property
    def worst_loss(self) -> float:
        """Highest of the domains' final validation losses."""
        return max(self.losses.values())

    @cached_property
    def earlier_cost(self) -> dict[str, float]:
        """Tokens, FLOPs and seconds of the stages before the last; zeros without any."""
        costs = [read_summary(folder).cost for _, folder in self.stages]
        return {key: sum(cost[key] for cost in costs) for key in self.summary.cost}

    @property
    def cost(self) -> dict[str, float]:
        """Tokens, FLOPs and seconds of all stages."""
        return {key: self.earlier_cost[key] + value for key, value in self.summary.cost.items()}

    @cached_property
    def accuracies(self) -> dict[str, float]:
        """Mean accuracy of each suite of downstream tasks that was evaluated."""
        return suite_means(read_results(self.final))

    @cached_property
    def setting(self) -> dict[str, Any]:
        """What must be alike for losses to compare, by the names that ``compare`` knows."""
        recipe = load_yaml(self.final / RECIPE)
        model, data = recipe.get("model") or {}, recipe.get("data") or {}
        return {
            "tokens": self.summary.tokens,
            "corpus": self.facts["fingerprint"],
            "tokenizer": self.facts["tokenizer"],
            "validation": {key: data.get(key) for key in OF_VALIDATION},
            "model": {key: model.get(key) for key in ("architecture", "config", "pretrained")},
        }


def find_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """The finished runs in and below some folders; an experiment's stages count as one run.

    Raises:
        UserError: for a folder without any, or a method that ran twice with one seed.
    """
    found: dict[Path, ComparedRun] = {}
    for path in paths:
        runs = list(_below(path, DEEPEST))
        if not runs:
            raise UserError(
                f"{path}: no finished run in it (a folder with {FILE_NAME} and {HISTORY}); name "
                "folders such as runs/uniform_gpt2 or runs/uniform_gpt2/seed_0"
            )
        found.update({run.folder.resolve(): run for run in runs})
    by_place: dict[tuple[str, int], ComparedRun] = {}
    for run in found.values():
        twin = by_place.setdefault((run.method, run.seed), run)
        if twin is not run:
            raise UserError(
                f"{twin.folder} and {run.folder} are both {run.method} with seed {run.seed}: name "
                "the runs to compare one by one"
            )
    return list(found.values())


def unfinished(paths: Sequence[Path]) -> list[Path]:
    """Folders of runs that began and did not come to their end."""
    begun = {file.parent for path in paths for file in path.glob("**/" + FACTS)}
    return sorted(folder for folder in begun if not (folder / FILE_NAME).is_file())


def _below(folder: Path, deepest: int) -> Iterator[ComparedRun]:
    if (folder / FILE_NAME).is_file():
        run = _run_in(folder)
        if run is not None:
            yield run
        return
    if deepest and folder.is_dir():
        for inner in sorted(folder.iterdir(), key=_in_numbers_order):
            hidden = inner.name.startswith(".")
            # A stage of an experiment that is not finished is no run of its own.
            if inner.is_dir() and not hidden and not (inner / RECORD).exists():
                yield from _below(inner, deepest - 1)


def _run_in(folder: Path) -> ComparedRun | None:
    """The run or the experiment in a folder; None for a summary of neither."""
    if (folder / HISTORY).is_file():
        return ComparedRun(folder, folder)
    content = read_json(folder / FILE_NAME)
    if not isinstance(content, Mapping) or "folder" not in content:
        return None
    stages = [(stage["stage"], folder / stage["folder"]) for stage in content["cost"]["stages"]]
    return ComparedRun(folder, folder / content["folder"], tuple(stages[:-1]))


def _in_numbers_order(path: Path) -> list[tuple[int, str]]:
    """So that seed_10 comes after seed_9."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", path.name)]
