"""Downstream tasks by lm-evaluation-harness: which, where from, and what they gave."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from dograph.errors import UserError
from dograph.evaluation.local_tasks import CLOZE, CONTINUATION, SUITE, write_local_tasks
from dograph.evaluation.subject import Subject
from dograph.evaluation.task_results import NAMED, Results, TaskResult

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
"""The suite ``paper``: those DoGraph was published with; their text comes from a hub."""
RESAMPLES = 1000
"""Of the harness's bootstrap, for standard errors that have no formula."""


def check_harness() -> str:
    """The version of the harness.

    Raises:
        UserError: if it is not installed.
    """
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
    subject: Subject,
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
        subject: model and store.
        asked: "local", "paper", names of the harness's tasks, or several with commas.
        folder: for the files of the local tasks. None: a temporary one.
        examples: of each local task.
        seed: of the local tasks' draws.
        batch_size: ≥ 1.
        note: told of domains without local tasks.

    Returns:
        results by task.

    Raises:
        UserError: if the harness is missing, for an unknown task, or one whose data cannot be
            had.
    """
    check_harness()
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: it must be ≥ 1")
    words = [word.strip() for word in asked.split(",") if word.strip()]
    if not words:
        raise UserError("--tasks is empty: say local, paper, or names of tasks")
    named = [word for word in words if word not in (SUITE, "paper")]
    with tempfile.TemporaryDirectory(prefix="dograph_tasks_") as scratch:
        suites: dict[str, str] = {}
        tasks: list[Any] = []
        if SUITE in words:
            place, context = folder or Path(scratch, "tasks"), subject.context
            local = write_local_tasks(subject.store, place, context, examples, seed, note)
            suites = {name: CLOZE if name.startswith(CLOZE) else CONTINUATION for name in local}
            with _nothing_kept(scratch):
                tasks = load_tasks(local, place, defaults=False)
        others = dict.fromkeys(named, NAMED)
        others.update(dict.fromkeys(PAPER, "paper") if "paper" in words else {})
        if others:
            tasks += load_tasks(list(others))
        return _evaluate(subject, tasks, {**suites, **others}, batch_size)


def load_tasks(
    names: Sequence[str], folder: Path | None = None, defaults: bool = True
) -> list[Any]:
    """The harness's task objects, with their data.

    Args:
        names: of tasks, groups or tags.
        folder: with YAML files of more tasks.
        defaults: whether the harness's own tasks are among them.

    Raises:
        UserError: for an unknown name, or data that cannot be had.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=defaults)
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, ["local", "paper", *manager.all_tasks], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"--tasks: the harness has no task {name!r}{hint}")
    loaded: list[Any] = []
    for name in names:
        try:
            found = manager.load([name])
        except Exception as error:  # whatever the hub's client raises, the remedy is the same
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"task {name}: its data cannot be had from the hub ({type(error).__name__}: "
                f"{reason}); connect to the hub, or use --tasks local, which needs no network"
            ) from error
        loaded += [*found.get("groups", {}).values()] or [*found["tasks"].values()]
    return loaded


def _evaluate(
    subject: Subject, tasks: list[Any], suites: dict[str, str], batch_size: int
) -> Results:
    import lm_eval

    from dograph.evaluation.harness import CheckpointLM, quiet

    # The harness prints a line for every bootstrap.
    with quiet(), _one_process(), redirect_stdout(None):
        answered: Any = lm_eval.simple_evaluate(
            model=CheckpointLM(subject, batch_size=batch_size),
            tasks=tasks,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
        )
    return {
        name: TaskResult(
            suites.get(name, NAMED),
            int(answered["n-samples"].get(name, {}).get("effective", 0)),
            dict(_metrics(entry)),
        )
        for name, entry in answered["results"].items()
    }


def _metrics(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a task by name; a filter is named behind it unless it is none."""
    for key, value in entry.items():
        name, comma, filtered = key.partition(",")
        if comma and isinstance(value, (int, float)):
            yield (name if filtered == "none" else key), float(value)


@contextmanager
def _one_process() -> Iterator[None]:
    """Keeps the harness from forking for its bootstrap while the block runs.

    A fork of a process with torch's and tokenizers' threads can hang, and a thousand resamples
    need none.
    """
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
def _nothing_kept(cache: str) -> Iterator[None]:
    """Lets datasets read local files quietly, without a hub, into ``cache`` while the block runs.

    Else it tells the hub, and keeps them in the user's cache.
    """
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
