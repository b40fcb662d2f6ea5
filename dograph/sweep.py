"""Many recipes over many seeds: what is missing runs, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dograph.composition import COMMAND_LINE, compose, stage_names
from dograph.corpus.atomic import read_json
from dograph.corpus.lock import exclusive
from dograph.corpus.prepare import prepare
from dograph.errors import UserError
from dograph.provenance import FACTS, digest_of, run_inputs
from dograph.recipe import check
from dograph.report.summary import FILE_NAME
from dograph.run import check_buildable, newest_checkpoints, steps_done
from dograph.stages import Experiment

LAST_LINES = 12
"""Of a failed run's log, shown at the end."""


@dataclass(frozen=True)
class Job:
    """One recipe with one seed.

    Attributes:
        recipe: its file.
        overrides: ``key=value``, with the seed.
        parent: folder of the recipe's runs.
        seed: of the run.
        digest: names what decides the run's numbers.
        steps: optimiser steps of the run; 0 for a recipe with stages.
    """

    recipe: Path
    overrides: tuple[str, ...]
    parent: Path
    seed: int
    digest: str
    steps: int

    @property
    def name(self) -> str:
        """For people and for the log's file."""
        return f"{self.parent.name} seed {self.seed}"

    def folders(self) -> list[Path]:
        """``seed_S``, ``seed_S_1`` … that hold a run, or an experiment, of just this job."""
        numbered = self.parent.glob(f"seed_{self.seed}_*")
        places = [self.parent / f"seed_{self.seed}", *sorted(numbered)]
        return [place for place in places if self.digest in _digests(place)]

    def finished(self) -> Path | None:
        """The folder in which it came to its end."""
        return next((place for place in self.folders() if (place / FILE_NAME).is_file()), None)

    def begun(self) -> Path | None:
        """The folder of a run without stages that left a checkpoint to go on from."""
        if not self.steps:  # stages go on by themselves
            return None
        for place in self.folders():
            newest = next(iter(newest_checkpoints(place)), None)
            if newest is not None and steps_done(newest) < self.steps:
                return place
        return None


@dataclass
class Failure:
    """A run that did not come to its end.

    Attributes:
        job: of the run.
        code: the process's exit code; negative for a signal.
        log: what it printed.
    """

    job: Job
    code: int
    log: Path

    def last_lines(self) -> str:
        """The end of the log."""
        lines = self.log.read_text(errors="replace").rstrip().splitlines()
        return "\n".join(lines[-LAST_LINES:])


@dataclass
class Running:
    """A job in its process."""

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    file: IO[bytes]
    slot: int
    began: float


@dataclass
class Sweep:
    """Recipes × seeds, run in processes; nothing runs twice.

    Args:
        recipes: files, each with another name.
        seeds: of each.
        overrides: ``key=value``, the last word, for all.
        processes: runs at once.
        threads: of each run. None: the machine's cores shared out.
        console: where to print.

    Attributes:
        failures: of the last ``run``.

    Raises:
        UserError: for a mistake in any recipe, before anything runs.
    """

    recipes: Sequence[Path]
    seeds: Sequence[int]
    overrides: Sequence[str] = ()
    processes: int = 1
    threads: int | None = None
    console: Console = field(default_factory=Console)
    failures: list[Failure] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        for key, value in (("processes", self.processes), ("threads", self.threads)):
            if value is not None and value < 1:
                raise UserError(f"{COMMAND_LINE}: {key} is {value}: it must be ≥ 1")
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"{COMMAND_LINE}: a seed stands twice in {list(self.seeds)}")
        if any(override.startswith("seed=") for override in self.overrides):
            raise UserError(f"{COMMAND_LINE}: name the seeds by --seeds, not by seed=")

    def jobs(self) -> list[Job]:
        """All jobs, seed by seed, so that a sweep that is stopped leaves whole comparisons.

        Raises:
            UserError: for a mistake in any recipe, or two recipes of one name.
        """
        jobs = [
            job_of(recipe, seed, self.overrides) for seed in self.seeds for recipe in self.recipes
        ]
        places = [(job.parent, job.seed) for job in jobs]
        for job in jobs:
            if places.count((job.parent, job.seed)) > 1:
                raise UserError(
                    f"{job.recipe}: another recipe writes to {job.parent}, too: give it another "
                    "name (key `name`)"
                )
        return jobs

    def run(self) -> list[Path]:
        """Runs what is missing; a run that fails does not stop the others.

        Returns:
            folders of what is finished, in the jobs' order.

        Raises:
            UserError: for mistakes, before anything runs.
            KeyboardInterrupt: on SIGINT or SIGTERM, after every run has saved a checkpoint.
        """
        jobs = self.jobs()
        runs = jobs[0].parent.parent
        with exclusive(runs / ".sweep.lock", lambda: self._say_waiting(runs)) as lock:
            missing = [job for job in jobs if job.finished() is None]
            self.console.print(
                f"{len(jobs)} runs: {len(jobs) - len(missing)} finished, {len(missing)} to do, "
                f"{self.processes} at once; logs in {runs / 'logs'}",
                soft_wrap=True,
            )
            self.failures = []
            with self._progress(len(jobs), len(jobs) - len(missing)) as bar:
                self._run(missing, runs / "logs", lock, bar)
        return [folder for job in jobs if (folder := job.finished()) is not None]

    def _say_waiting(self, runs: Path) -> None:
        self.console.print(f"another sweep is running in {runs}; waiting for it", soft_wrap=True)

    def _progress(self, total: int, done: int) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        bar = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        bar.add_task("runs", total=total, completed=done)
        return bar

    def _run(self, missing: Sequence[Job], logs: Path, lock: int, bar: Progress) -> None:
        waiting, running = list(missing), list[Running]()
        logs.mkdir(parents=True, exist_ok=True)
        try:
            with raising_on_termination():
                while waiting or running:
                    free = set(range(self.processes)) - {run.slot for run in running}
                    if waiting and free:
                        running.append(self._start(waiting.pop(0), min(free), logs, lock))
                        continue
                    time.sleep(0.2)
                    for run in [run for run in running if run.process.poll() is not None]:
                        running.remove(run)
                        self._conclude(run, bar)
                    names = ", ".join(run.job.name for run in running)
                    bar.update(bar.task_ids[0], description=names or "runs")
        finally:
            self._stop(running)

    def _start(self, job: Job, slot: int, logs: Path, lock: int) -> Running:
        words = [sys.executable, "-m", "dograph", "run", str(job.recipe), *job.overrides]
        begun = job.begun()
        words += ["--resume", str(begun)] if begun is not None else []
        log = logs / f"{job.parent.name}_seed_{job.seed}.log"
        file = log.open("ab")
        environment = {**os.environ, **environment_of(slot, self.processes, self.threads)}
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],  # a run that outlives its sweep keeps the next sweep waiting
            start_new_session=True,  # Ctrl-C comes to it once, from here
        )
        return Running(job, process, log, file, slot, time.monotonic())

    def _conclude(self, run: Running, bar: Progress) -> None:
        run.file.close()
        bar.advance(bar.task_ids[0])
        code, seconds = run.process.returncode, time.monotonic() - run.began
        folder = run.job.finished() if code == 0 else None
        if folder is None:
            self.failures.append(Failure(run.job, code, run.log))
            self.console.print(f"{run.job.name}: failed (exit code {code}), see {run.log}")
            return
        summary = read_json(folder / FILE_NAME)
        losses = (
            f"mean loss {summary['mean_loss']:.4f}, worst {summary['worst_loss']:.4f}"
            if summary["mean_loss"] is not None and summary["worst_loss"] is not None
            else "no validation"
        )
        self.console.print(f"{run.job.name}: {losses}, {seconds:,.0f} s", highlight=False)

    def _stop(self, running: Sequence[Running]) -> None:
        """Lets every run save a checkpoint and end."""
        if not running:
            return
        self.console.print("Stopping; every run saves a checkpoint. Run it again to go on.")
        for run in running:
            run.process.send_signal(signal.SIGINT)
        for run in running:
            try:
                run.process.wait()
            except KeyboardInterrupt:  # a second Ctrl-C
                run.process.kill()
            run.file.close()


def job_of(recipe: Path, seed: int, overrides: Sequence[str]) -> Job:
    """A recipe with a seed, checked; its corpus is prepared if it is not yet.

    Raises:
        UserError: for a mistake in the recipe.
    """
    given = (*overrides, f"seed={seed}")
    if stage_names(recipe, given):
        experiment = Experiment(recipe, given)
        last = list(experiment.check().values())[-1]
        return Job(recipe, given, last.runs / last.name, seed, experiment.digest(), 0)
    checked = check(compose(recipe, given))
    check_buildable(checked)
    digest = digest_of(run_inputs(checked.composition.values, prepare(checked.corpus)))
    steps = int(checked.arguments("trainer")["max_steps"])
    return Job(recipe, given, checked.runs / checked.name, seed, digest, steps)


def environment_of(slot: int, processes: int, threads: int | None) -> dict[str, str]:
    """Environment variables by which runs at once share out cores and GPUs.

    Args:
        slot: of the run, in [0, processes).
        processes: runs at once.
        threads: of each run. None: the cores by the runs.
    """
    import torch

    each = threads or max((os.cpu_count() or 1) // processes, 1)
    shared = {"OMP_NUM_THREADS": str(each)}
    devices = torch.cuda.device_count()
    if devices >= processes > 1:
        share = devices // processes
        own = range(slot * share, (slot + 1) * share)
        shared["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
    return shared


@contextmanager
def raising_on_termination() -> Iterator[None]:
    """Inside the block SIGTERM, too, raises KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _digests(folder: Path) -> tuple[object, object]:
    """Of a run and of an experiment in a folder; None for what cannot be read."""
    found = []
    for name in (FACTS, FILE_NAME):
        try:
            content = read_json(folder / name)
        except (ValueError, OSError):
            content = None
        found.append(content.get("digest") if isinstance(content, Mapping) else None)
    return found[0], found[1]
