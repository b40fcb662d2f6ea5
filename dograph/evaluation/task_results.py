"""Downstream tasks' suites and results: in a file of the run, in a table, and their means."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from dograph.errors import UserError
from dograph.evaluation.scores import finite_json
from dograph.files.atomic import read_json, write_json
from dograph.files.run_dir import TASKS
from dograph.terminal.tables import screen_table
from dograph.training.checkpoint_reader import CheckpointIdentity

LOCAL, CLOZE, CONTINUATION = "local", "local_cloze", "local_continuation"
"""The suite made of a store's text, and its two kinds of tasks, which have a mean each."""
PAPER = (
    "piqa",
    "hellaswag",
    "lambada_openai",
    "copa",
    "openbookqa",
    "winogrande",
    "sciq",
    "logiqa",
    "arc_easy",
)
"""The suite ``paper``: the tasks DoGraph was published with; their text comes from a hub."""


def suite_of(task: str) -> str:
    """A task's suite: "local_cloze", "local_continuation", "paper" or, without a mean, "named"."""
    for kind in (CLOZE, CONTINUATION):
        if task.startswith(f"{kind}_"):
            return kind
    return "paper" if task in PAPER else "named"


class Conditions(NamedTuple):
    """How a task was evaluated: results under different conditions do not compare.

    Attributes:
        asked: number of examples. None: all that the task has, or unknown.
        seed: of the draw of its examples. None: they are not drawn.
        lm_eval: version of the harness.
    """

    asked: int | None
    seed: int | None
    lm_eval: str | None


CELLS = {"acc": "{:.1%}", "acc_stderr": " ± {:.1%}", "acc_norm": "{:.1%}", "perplexity": "{:,.1f}"}
"""What a table shows of a task, and how."""
UNKNOWN = Conditions(None, None, None)


@dataclass(frozen=True)
class TaskResult:
    """What the harness measured on one task.

    Attributes:
        examples: number of examples answered.
        metrics: by the harness's names, such as "acc", "acc_stderr", "acc_norm", "perplexity".
        conditions: how the task was evaluated.
        suite_tasks: size of a local task's suite; None for other tasks.
        checkpoint: that was measured. None: an earlier version, which did not record it.
    """

    examples: int
    metrics: dict[str, float]
    conditions: Conditions = UNKNOWN
    suite_tasks: int | None = None
    checkpoint: CheckpointIdentity | None = None

    def as_json(self) -> dict[str, Any]:
        """In JSON's types; numbers that are not finite become null."""
        counts = {"examples": self.examples, "suite_tasks": self.suite_tasks}
        step, digest = self.checkpoint or (None, None)
        made_of = {"checkpoint_step": step, "checkpoint_digest": digest}
        return {**counts, **self.conditions._asdict(), **made_of, **finite_json(self.metrics)}


Results = dict[str, TaskResult]


def suite_means(results: Mapping[str, TaskResult]) -> dict[str, float]:
    """Mean accuracy over the tasks of each complete suite.

    Complete are all tasks of ``paper``, and all local ones that were written for the store.
    """
    by_suite: dict[str, list[TaskResult]] = {}
    for name, result in results.items():
        if "acc" in result.metrics:
            by_suite.setdefault(suite_of(name), []).append(result)
    return {
        suite: math.fsum(result.metrics["acc"] for result in tasks) / len(tasks)
        for suite, tasks in by_suite.items()
        if _is_complete(suite, tasks)
    }


def _is_complete(suite: str, tasks: Sequence[TaskResult]) -> bool:
    """Whether these are all tasks of their suite; older local ones do not say."""
    if suite in (CLOZE, CONTINUATION):
        return all(result.suite_tasks in (None, len(tasks)) for result in tasks)
    return suite == "paper" and len(tasks) == len(PAPER)


def as_json(results: Results, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Results and their means in JSON's types, with metadata beside them."""
    tasks = {name: {"suite": suite_of(name), **task.as_json()} for name, task in results.items()}
    return {**metadata, "tasks": tasks, "means": suite_means(results)}


def read_results(run: Path) -> Results:
    """Reads ``tasks.json`` of a run directory; empty without one."""
    path = run / TASKS
    try:
        content = read_json(path)
        tasks = content["tasks"] if content is not None else {}
        return {name: _from_json(dict(entry)) for name, entry in tasks.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: move it away, and evaluate the tasks again") from error


def _from_json(entry: dict[str, Any]) -> TaskResult:
    entry.pop("suite", None)  # follows from the name
    examples, lm_eval = int(entry.pop("examples")), entry.pop("lm_eval", None)
    asked, seed, suite_tasks, step = (
        None if (number := entry.pop(key, None)) is None else int(number)
        for key in ("asked", "seed", "suite_tasks", "checkpoint_step")
    )
    digest = entry.pop("checkpoint_digest", None)
    checkpoint = None if step is None else CheckpointIdentity(step, digest)
    metrics = {name: math.nan if value is None else float(value) for name, value in entry.items()}
    return TaskResult(examples, metrics, Conditions(asked, seed, lm_eval), suite_tasks, checkpoint)


def stale_tasks(results: Results, now: CheckpointIdentity, changed: bool) -> list[str]:
    """Names of the tasks that were measured on an earlier checkpoint of a run.

    Args:
        results: of its ``tasks.json``.
        now: identity of its final checkpoint.
        changed: whether the run was resumed under another recipe; then results that do not say
            what they are of may be older.
    """
    return [name for name, result in results.items() if _is_stale(result.checkpoint, now, changed)]


def _is_stale(of: CheckpointIdentity | None, now: CheckpointIdentity, changed: bool) -> bool:
    if of is None:
        return changed
    if None in (of.digest, now.digest):
        return of.step != now.step
    return of.digest != now.digest


def write_results(
    run: Path, results: Results, metadata: Mapping[str, Any], stale: Collection[str] = ()
) -> Path:
    """Adds results to a run's ``tasks.json``, without the ``stale`` ones; returns its path.

    Local tasks replace all earlier local ones, so that a suite comes from one call.
    """
    path, local = run / TASKS, (CLOZE, CONTINUATION)
    kept = {name: result for name, result in read_results(run).items() if name not in stale}
    if any(suite_of(name) in local for name in results):
        kept = {name: result for name, result in kept.items() if suite_of(name) not in local}
    try:
        write_json(path, as_json({**kept, **results}, metadata))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}): name a file with --output"
        ) from error
    return path


def results_table(results: Results) -> Table:
    """One row for each task, then the suites' means."""
    headings = ("examples", "accuracy", "normalised", "perplexity")
    table = screen_table("Tasks", "task", *headings, caption="±: the standard error")
    for name, result in results.items():
        acc, deviation, normalised, perplexity = (
            "" if (value := result.metrics.get(metric)) is None else form.format(value)
            for metric, form in CELLS.items()
        )
        table.add_row(Text(name), f"{result.examples:,}", acc + deviation, normalised, perplexity)
    table.add_section()
    for suite, mean in suite_means(results).items():
        table.add_row(Text(f"mean of {suite}"), "", f"{mean:.1%}", "", "")
    return table
