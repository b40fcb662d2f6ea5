"""Downstream tasks, run by lm-evaluation-harness."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from dograph.errors import UserError, check_range
from dograph.evaluation.evaluated_model import EvaluatedModel
from dograph.evaluation.local_tasks import write_local_tasks
from dograph.evaluation.task_results import LOCAL, PAPER, Conditions, Results, TaskResult, suite_of

RESAMPLES = 1000
"""Draws of the harness's bootstrap, for standard errors that have no formula."""


def check_harness() -> str:
    """The version of the harness; raises UserError if it is not installed."""
    try:
        from importlib.metadata import version

        import accelerate  # noqa: F401  (the harness's model needs it)
        import lm_eval  # noqa: F401

        return version("lm_eval")
    except ImportError as error:
        raise UserError(
            f"--tasks needs lm-evaluation-harness ({error}): pip install 'dograph[eval]'"
        ) from error


def run_tasks(
    evaluated: EvaluatedModel,
    asked: str,
    folder: Path | None = None,
    examples: int = 100,
    seed: int = 0,
    batch_size: int = 32,
    note: Callable[[str], None] = print,
) -> Results:
    """Evaluates a checkpoint on tasks, without examples in the prompt unless a task has its own.

    The harness seeds Python's, NumPy's and torch's generators.

    Args:
        evaluated: model and store.
        asked: "local", "paper", names of the harness's tasks, or several with commas.
        folder: for the local tasks' files. None: a temporary one.
        examples: number of each local task.
        seed: of the local tasks' draws.
        batch_size: sequences per forward, ≥ 1.
        note: called with a message about domains without local tasks.

    Raises:
        UserError: if the harness is missing, or a task is unknown or its data unavailable.
    """
    check_range("--batch-size", batch_size, at_least=1)
    version = check_harness()
    words = asked_words(asked)
    with tempfile.TemporaryDirectory(prefix="dograph_tasks_") as scratch:
        local: list[str] = []
        tasks: list[Any] = []
        if LOCAL in words:
            folder = folder or Path(scratch, "tasks")
            local = write_local_tasks(
                evaluated.store, folder, evaluated.context, examples, seed, note
            )
            with _private_cache(scratch):
                tasks = load_local_tasks(local, folder)
        tasks += load_tasks([name for name in task_names(words) if name != LOCAL])
        results = _evaluate(evaluated, tasks, batch_size, Conditions(None, None, version))
    drawn, sizes = Conditions(examples, seed, version), Counter(map(suite_of, local))
    for name in local:
        results[name] = replace(results[name], conditions=drawn, suite_tasks=sizes[suite_of(name)])
    made_of = evaluated.identity
    return {name: replace(result, checkpoint=made_of) for name, result in results.items()}


def task_names(words: list[str]) -> list[str]:
    """The words, each once, with the names of its tasks in place of "paper"."""
    names = chain.from_iterable(PAPER if word == "paper" else (word,) for word in words)
    return list(dict.fromkeys(names))


def asked_words(asked: str) -> list[str]:
    """The words between the commas of ``--tasks``; raises UserError if there are none."""
    words = [word.strip() for word in asked.split(",") if word.strip()]
    if not words:
        raise UserError("--tasks is empty: give local, paper, or names of tasks")
    return words


def load_local_tasks(names: Sequence[str], folder: Path) -> list[Any]:
    """Loads task objects of the harness from files that ``write_local_tasks`` wrote."""
    from lm_eval.tasks import TaskManager

    try:
        loaded = TaskManager(include_path=str(folder), include_defaults=False).load(list(names))
    except Exception as error:  # the harness and datasets raise many kinds
        raise UserError(
            f"{folder}: its tasks cannot be read ({_first_line(error)}): name another folder, of "
            "letters and digits, with --task-folder"
        ) from error
    return list(loaded["tasks"].values())


def load_tasks(names: Sequence[str]) -> list[Any]:
    """Loads the harness's own tasks, groups or tags by their names, with their data.

    Raises:
        UserError: for an unknown name, or unavailable data.
    """
    from lm_eval.tasks import TaskManager

    if not names:
        return []
    manager = TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, ["local", "paper", *manager.all_tasks], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"--tasks: the harness has no task {name!r}{hint}")
    loaded: list[Any] = []
    for name in names:
        try:
            entry = manager.load([name])
        except Exception as error:  # any of the hub's client: the remedy is the same
            raise UserError(
                f"task {name}: its data cannot be had from the hub ({_first_line(error)}); "
                "connect to the hub, or use --tasks local, which needs no network"
            ) from error
        loaded += [*entry.get("groups", {}).values()] or [*entry["tasks"].values()]
    return loaded


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _evaluate(
    evaluated: EvaluatedModel, tasks: list[Any], batch_size: int, conditions: Conditions
) -> Results:
    import lm_eval

    from dograph.evaluation.harness import CheckpointLM, quiet

    # The harness prints a line for every bootstrap.
    with quiet(), _one_process(), redirect_stdout(None):
        answers: Any = lm_eval.simple_evaluate(
            model=CheckpointLM(evaluated, batch_size=batch_size),
            tasks=tasks,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
        )
    counts = {name: int(entry["effective"]) for name, entry in answers["n-samples"].items()}
    return {
        name: TaskResult(counts.get(name, 0), dict(_metrics(entry)), conditions)
        for name, entry in answers["results"].items()
    }


def _metrics(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a task by name; a filter's name stays behind it, unless it is none."""
    for key, value in entry.items():
        name, comma, filtered = key.partition(",")
        if comma and isinstance(value, (int, float)):
            yield (name if filtered == "none" else key), float(value)


@contextmanager
def _one_process() -> Iterator[None]:
    """Keeps the harness from forking: with torch's and tokenizers' threads a fork can hang."""
    name = "DISABLE_MULTIPROC"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _private_cache(cache: str) -> Iterator[None]:
    """Lets datasets read local files without a message to the hub, into ``cache``."""
    import datasets

    config = datasets.config
    before = (config.HF_UPDATE_DOWNLOAD_COUNTS, config.HF_DATASETS_CACHE)
    hidden = datasets.are_progress_bars_disabled()
    config.HF_UPDATE_DOWNLOAD_COUNTS, config.HF_DATASETS_CACHE = False, Path(cache)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS, config.HF_DATASETS_CACHE = before
        if not hidden:
            datasets.enable_progress_bars()
