"""Results of downstream tasks: in a file of the run, in a table, and their means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dograph.corpus.atomic import read_json, write_json
from dograph.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

FILE_NAME = "tasks.json"
"""In a run's folder: of its final checkpoint, on its own corpus."""
NAMED = "named"
"""The suite of tasks that were asked for one by one; it has no mean."""


@dataclass(frozen=True)
class TaskResult:
    """What the harness measured on one task.

    Attributes:
        suite: "local_cloze", "local_continuation", "paper" or "named".
        examples: that were answered.
        metrics: by the harness's names, such as "acc", "acc_stderr", "acc_norm", "perplexity".
    """

    suite: str
    examples: int
    metrics: dict[str, float]

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]; None for a task without one."""
        return self.metrics.get("acc")

    def as_json(self) -> dict[str, Any]:
        """By name; what is not finite becomes null."""
        numbers = {
            name: number if math.isfinite(number) else None for name, number in self.metrics.items()
        }
        return {"suite": self.suite, "examples": self.examples, **numbers}


Results = dict[str, TaskResult]


def suite_means(results: Mapping[str, TaskResult]) -> dict[str, float]:
    """Mean accuracy over each suite's tasks, every task counting alike."""
    by_suite: dict[str, list[float]] = {}
    for result in results.values():
        if result.accuracy is not None and result.suite != NAMED:
            by_suite.setdefault(result.suite, []).append(result.accuracy)
    return {suite: math.fsum(found) / len(found) for suite, found in by_suite.items()}


def as_json(results: Results, facts: Mapping[str, Any]) -> dict[str, Any]:
    """All of it in JSON's types, with what it was measured on."""
    tasks = {name: result.as_json() for name, result in results.items()}
    return {**facts, "tasks": tasks, "means": suite_means(results)}


def read_results(run: Path) -> Results:
    """What ``tasks.json`` in a run's folder holds; empty without one.

    Raises:
        UserError: if it is damaged.
    """
    path = run / FILE_NAME
    try:
        content = read_json(path)
        found = content["tasks"] if content is not None else {}
        return {name: _from_json(dict(entry)) for name, entry in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: delete it, and evaluate the tasks again") from error


def _from_json(entry: dict[str, Any]) -> TaskResult:
    suite, examples = str(entry.pop("suite")), int(entry.pop("examples"))
    metrics = {name: math.nan if value is None else float(value) for name, value in entry.items()}
    return TaskResult(suite, examples, metrics)


def read_accuracies(run: Path) -> dict[str, float]:
    """Accuracy by task of a run's final checkpoint; empty if no task was evaluated.

    Raises:
        UserError: if the run's ``tasks.json`` is damaged.
    """
    results = read_results(run)
    return {name: r.accuracy for name, r in results.items() if r.accuracy is not None}


def write_results(run: Path, results: Results, facts: Mapping[str, Any]) -> Path:
    """Puts results beside those of other tasks in a run's ``tasks.json``; gives its path."""
    write_json(run / FILE_NAME, as_json({**read_results(run), **results}, facts))
    return run / FILE_NAME


def results_table(results: Results) -> Table:
    """One row for each task, then the suites' means."""
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Tasks",
        title_justify="left",
        caption=Text("±: the standard error"),
        caption_justify="left",
        box=HORIZONTALS,
        pad_edge=False,
    )
    table.add_column("task", overflow="fold")
    for heading in ("examples", "accuracy", "normalised", "perplexity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, result in results.items():
        cells = [_percent(result, "acc"), _percent(result, "acc_norm", error=False)]
        perplexity = result.metrics.get("perplexity")
        last = "" if perplexity is None else f"{perplexity:,.1f}"
        table.add_row(Text(name), f"{result.examples:,}", *cells, last)
    table.add_section()
    for suite, mean in suite_means(results).items():
        table.add_row(Text(f"mean of {suite}"), "", f"{mean:.1%}", "", "")
    return table


def _percent(result: TaskResult, metric: str, error: bool = True) -> str:
    value, deviation = result.metrics.get(metric), result.metrics.get(f"{metric}_stderr")
    if value is None:
        return ""
    return f"{value:.1%}" + (f" ± {deviation:.1%}" if error and deviation is not None else "")
