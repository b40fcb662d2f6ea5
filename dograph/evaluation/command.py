"""What `dograph evaluate` does: tasks, losses, tables, and files that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from dograph.corpus.atomic import write_json
from dograph.errors import UserError
from dograph.evaluation.downstream import check_harness, run_tasks
from dograph.evaluation.evaluate import described, evaluate, scores_table
from dograph.evaluation.local_tasks import SUITE
from dograph.evaluation.subject import open_subject
from dograph.evaluation.task_results import (
    FILE_NAME,
    Results,
    as_json,
    read_results,
    results_table,
    write_results,
)


def evaluate_checkpoint(
    checkpoint: Path,
    corpus: Path | None = None,
    sequences: int | None = None,
    context: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    resamples: int = 1000,
    seed: int = 0,
    tasks: str | None = None,
    examples: int = 100,
    task_folder: Path | None = None,
    output: Path | None = None,
    force: bool = False,
) -> None:
    """Evaluates a checkpoint, prints the tables, and writes the files.

    ``output`` holds everything. Without it, the tasks of a run's final checkpoint on its own
    corpus go to ``tasks.json`` in the run's folder, beside earlier ones; the local tasks' files
    go to its folder ``tasks``.

    Raises:
        UserError: for what is missing, does not fit or would be overwritten; before any work
            where it can be known.
    """
    if output is not None and output.exists() and not force:
        raise UserError(f"{output} exists: name another file, or add --force")
    console = Console()

    def note(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    version = check_harness() if tasks is not None else None
    subject = open_subject(checkpoint, corpus, context, device)
    results: Results = {}
    run = subject.final_of if subject.on_own_corpus else None
    if tasks is not None:
        if run is not None and output is None and not force:
            _check_unmeasured(run, tasks)
        folder = task_folder or (run / "tasks" if run else None)
        size = 32 if batch_size is None else batch_size
        results = run_tasks(subject, tasks, folder, examples, seed, size, note)
    found = evaluate(subject, sequences, batch_size, resamples, seed, console)
    note(f"Checkpoint: {subject.checkpoint}")
    note(f"Corpus: {subject.store.path}")
    console.print(scores_table(found))
    facts: dict[str, Any] = {"seed": seed, "examples": examples, "lm_eval": version}
    if tasks is not None:
        console.print(results_table(results))
        if run is not None and output is None:
            latest = {**described(subject), **facts, "tasks": tasks}
            note(f"Wrote: {write_results(run, results, {'latest': latest})}")
    if output is not None:
        content = {**described(subject), "resamples": resamples, "seed": seed, **found.as_json()}
        content.update({"downstream": as_json(results, facts)} if results else {})
        _write(output, content)
        note(f"Wrote: {output}")


def _check_unmeasured(run: Path, asked: str) -> None:
    """Raises UserError if the run already has results of a suite or task."""
    there: set[str] = set()
    for name, result in read_results(run).items():
        there |= {name, SUITE if result.suite.startswith(SUITE) else result.suite}
    again = sorted(there & {word.strip() for word in asked.split(",")})
    if again:
        raise UserError(
            f"{run / FILE_NAME} has results of {', '.join(again)}: add --force to replace them, "
            "or name another file with --output"
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        write_json(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
