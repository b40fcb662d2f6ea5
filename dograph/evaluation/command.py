"""`dograph evaluate`: tasks and losses of a checkpoint, as tables and as JSON."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from dograph.errors import UserError, check_range
from dograph.evaluation.downstream import asked_words, check_harness, run_tasks, task_names
from dograph.evaluation.evaluate import describe, evaluate, few_sequences_note, scores_table
from dograph.evaluation.evaluated_model import EvaluatedModel, open_evaluated
from dograph.evaluation.held_out import open_domains
from dograph.evaluation.task_results import (
    LOCAL,
    as_json,
    read_results,
    results_table,
    stale_tasks,
    suite_of,
    write_results,
)
from dograph.evaluation.text_bytes import why_no_bits_per_byte
from dograph.files.atomic import as_text, write_output
from dograph.files.run_dir import TASKS
from dograph.terminal.screen import Screen


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
    corpus and context go to ``tasks.json`` in the run directory, beside earlier ones; the local
    tasks' files go to its folder ``tasks``. Tasks are printed and written before the validation
    text is read. What is missing, does not fit or would be overwritten raises UserError, before any
    work where it can be known.
    """
    numbers = {"sequences": sequences, "context": context, "batch-size": batch_size}
    for name, number in {**numbers, "resamples": resamples, "examples": examples}.items():
        if number is not None:
            check_range(f"--{name}", number, at_least=1)
    _check_output(output, force)
    words = [] if tasks is None else asked_words(tasks)
    if words:
        check_harness()
    evaluated = open_evaluated(checkpoint, corpus, context, device)
    open_domains(evaluated)  # raises for a domain without text
    report = _Report(evaluated, output, force)
    report.note(f"Checkpoint: {evaluated.checkpoint}")
    report.note(f"Corpus: {evaluated.store.path}")
    left_out = why_no_bits_per_byte(evaluated.store)
    if left_out is not None:
        report.note(f"Warning: bits/byte are left out, and tasks' own would mislead: {left_out}")
    if evaluated.source is not None and evaluated.source.changed is not None:
        report.note(f"Note: the run was resumed under another recipe: {evaluated.source.changed}")
    if words:
        report.run_tasks(words, task_folder, examples, seed, batch_size or 32)
    scores = evaluate(evaluated, sequences, batch_size, resamples, seed, report.console)
    report.console.print(scores_table(scores))
    if (few := few_sequences_note(scores)) is not None:
        report.note(f"Note: {few}")
    reason = {} if left_out is None else {"bits_per_byte_left_out": left_out}
    report.add({"resamples": resamples, "seed": seed, **scores.as_json(), **reason})
    if output is not None:
        report.note(f"Wrote: {output}")


@dataclass(frozen=True)
class _Report:
    """Writes results to the screen, and to the user's file ``output`` or the run's own."""

    evaluated: EvaluatedModel
    output: Path | None
    force: bool
    console: Console = field(default_factory=Screen)
    content: dict[str, Any] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Prints a line as it is."""
        self.console.print(Text(text), soft_wrap=True)

    def stale(self, run: Path) -> list[str]:
        """Names of tasks in a run's file that were measured on an earlier checkpoint."""
        changed = self.evaluated.source is not None and self.evaluated.source.changed is not None
        return stale_tasks(read_results(run), self.evaluated.identity, changed)

    def check_unmeasured(self, words: list[str]) -> None:
        """Raises UserError if the run already has results of a suite or task that is asked for.

        Those of an earlier checkpoint do not count.
        """
        run = self.evaluated.run
        if run is None and self.output is None:
            self.note("Tasks are printed only: name a file with --output to keep their results")
        if run is None or self.output is not None or self.force:
            return
        measured = set(read_results(run)).difference(self.stale(run))
        names = {LOCAL if suite_of(name).startswith(LOCAL) else name for name in measured}
        if again := sorted(names.intersection(task_names(words))):
            raise UserError(
                f"{run / TASKS} has results of {', '.join(again)}: add --force to "
                "replace them, or name another file with --output"
            )

    def run_tasks(
        self, words: list[str], folder: Path | None, examples: int, seed: int, batch_size: int
    ) -> None:
        """Evaluates tasks; prints and writes the results before anything else can fail."""
        self.check_unmeasured(words)
        run, asked = self.evaluated.run, ",".join(words)
        folder = folder or (run and run / "tasks")
        results = run_tasks(self.evaluated, asked, folder, examples, seed, batch_size, self.note)
        self.console.print(results_table(results))
        self.add({"downstream": as_json(results, {})})
        if self.output is None and run is not None:
            latest = {**describe(self.evaluated), "tasks": asked}
            if stale := self.stale(run):
                names = ", ".join(stale)
                self.note(f"Removed, since they are of an earlier checkpoint: results of {names}")
            self.note(f"Wrote: {write_results(run, results, {'latest': latest}, stale)}")

    def add(self, content: dict[str, Any]) -> None:
        """Writes content beside what came before to the user's file, if there is one."""
        self.content.update(content)
        if self.output is None:
            return
        try:
            write_output(self.output, as_text({**describe(self.evaluated), **self.content}))
        except OSError as error:
            raise UserError(f"{self.output}: cannot be written: {error.strerror}") from error


def _check_output(output: Path | None, force: bool) -> None:
    """Raises UserError if the file may not, or cannot, be written."""
    if output is None:
        return
    if output.is_dir():
        raise UserError(f"--output {output} is a folder: name a file")
    if output.exists() and not force:
        raise UserError(f"{output} exists: name another file, or add --force")
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UserError(f"--output {output}: {above} cannot be written to: name another file")
