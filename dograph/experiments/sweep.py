"""Runs recipes over seeds: jobs known by what decides their numbers, a process each."""

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

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dograph.errors import UserError, check_range
from dograph.experiments.open_run import is_finished, same_runs
from dograph.experiments.plan import Corpora, Plan
from dograph.experiments.provenance import own_commit, read_provenance
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import COMMAND_LINE, RecipeFile
from dograph.experiments.resume import passed_over
from dograph.experiments.run_inputs import RunInputs
from dograph.files.atomic import read_mapping
from dograph.files.lock import exclusive
from dograph.files.run_dir import SUMMARY, seed_dir
from dograph.reports.summary import read_stages
from dograph.terminal.progress import Pace, duration, print_line
from dograph.terminal.screen import Screen, is_live

LAST_LINES = 12
"""Lines of a failed run's log that are shown."""


@dataclass(frozen=True)
class Job:
    """One recipe with one seed."""

    recipe: Path
    overrides: tuple[str, ...]
    """``key=value``, with the seed."""
    parent: Path
    """folder of the recipe's runs."""
    seed: int
    inputs: RunInputs | None
    """what decides the run's numbers; None for a recipe with stages."""
    staged_digest: str = ""
    """digest of what decides the numbers of a recipe with stages."""

    @property
    def name(self) -> str:
        """The job's name in messages."""
        return f"{self.parent.name} seed {self.seed}"

    def finished(self) -> Path | None:
        """The folder of its finished run; None if it is not finished."""
        if self.inputs is None:
            folder = seed_dir(self.parent, self.seed)
            digest = read_mapping(folder / SUMMARY).get("digest")
            return folder if digest == self.staged_digest else None
        same = same_runs(self.parent, self.seed, self.inputs)
        return next((folder for folder in same if is_finished(folder)), None)


def jobs_of(recipes: Sequence[Path], seeds: Sequence[int], overrides: Sequence[str]) -> list[Job]:
    """All jobs, checked, seed by seed, so that a stopped sweep leaves whole comparisons."""
    corpora = Corpora()
    jobs = [job_of(recipe, seed, overrides, corpora) for seed in seeds for recipe in recipes]
    places = [(job.parent, job.seed) for job in jobs]
    for job, place in zip(jobs, places, strict=True):
        if places.count(place) > 1:
            both = f"another recipe writes to {job.parent}, too"
            raise UserError(f"{job.recipe}: {both}: give it another name (key `name`)")
    return jobs


def job_of(path: Path, seed: int, overrides: Sequence[str], corpora: Corpora) -> Job:
    """Check a recipe with a seed, and prepare its corpus if it is not yet."""
    given = (*overrides, f"seed={seed}")
    file = RecipeFile(path, given)
    if file.stages:
        plan = Plan.make(file)
        return Job(path, given, plan.folder.parent, seed, None, plan.digest(corpora))
    recipe = check(file.compose())
    inputs = RunInputs(recipe.composition.values, corpora.prepare(recipe))
    return Job(path, given, recipe.runs / recipe.name, seed, inputs)


@dataclass
class Failure:
    """A run that failed."""

    job: Job
    reason: str
    """such as "exit code 2"."""
    log: Path
    """file with what it printed."""

    def last_lines(self) -> str:
        """The end of the log; empty without one."""
        return "\n".join(last_lines(self.log, LAST_LINES))


@dataclass
class Running:
    """A job, its process, and its share of the machine."""

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    slot: int
    began: float

    def progress(self) -> str:
        """The run's name and how far it is, by the last step that its log tells."""
        steps = [line for line in last_lines(self.log, LAST_LINES) if line.startswith("step ")]
        return f"{self.job.name} ({steps[-1]})" if steps else self.job.name


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log, of whose end 10 kB are read; none without one."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 10_000, 0))
        text = file.read().decode("utf-8", errors="replace")
    return text.rstrip().splitlines()[-count:]


@dataclass
class Sweep:
    """Recipes × seeds, run in processes; nothing runs twice.

    Each recipe has another name; ``overrides`` (key=value) are the last word on all of them.
    """

    recipes: Sequence[Path]
    seeds: Sequence[int]
    overrides: Sequence[str] = ()
    processes: int = 1
    """runs at once."""
    threads: int | None = None
    """threads of each run. None: the environment's number, else an equal share of cores."""
    mixers: Path | None = None
    """file or folder of the user's own mixers."""
    console: Console = field(default_factory=Screen)
    failures: list[Failure] = field(init=False, default_factory=list)
    """failed runs of the last ``run``."""
    _signals: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        for key, value in (("processes", self.processes), ("threads", self.threads)):
            if value is not None:
                check_range(f"{COMMAND_LINE}: {key}", value, at_least=1)
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"{COMMAND_LINE}: seeds is {list(self.seeds)}: name each seed once")
        if any(override.startswith("seed=") for override in self.overrides):
            raise UserError(f"{COMMAND_LINE}: name the seeds with --seeds, not with seed=")

    def run(self) -> list[Path]:
        """Run what is missing; return the folders of all finished runs, in the jobs' order.

        A run that fails does not stop the others.

        Raises:
            UserError: for mistakes, before anything runs.
            KeyboardInterrupt: on SIGINT or SIGTERM, after every run has saved a checkpoint.
        """
        return self.run_jobs(jobs_of(self.recipes, self.seeds, self.overrides))

    def run_jobs(self, jobs: Sequence[Job]) -> list[Path]:
        """The same for jobs of any recipes and overrides, in one folder of runs; at least one."""
        runs = jobs[0].parent.parent
        waiting = f"another sweep is running in {runs}; waiting for it"
        with exclusive(runs / ".sweep.lock", lambda: self._print(waiting)) as lock:
            done = [folder for job in jobs if (folder := job.finished())]
            missing = [job for job in jobs if not job.finished()]
            counts = f"{len(jobs)} runs: {len(done)} finished, {len(missing)} to do"
            self._print(f"{counts}, {self.processes} at once; logs in {runs / 'logs'}")
            self._print_other_commits(done)
            for job in missing:
                for sentence in passed_over(job.parent, job.seed, job.inputs) if job.inputs else ():
                    self._print(sentence)
            self.failures, self._signals = [], 0
            with self._progress(len(jobs), len(done)) as bar, self._counting_signals():
                self._run(missing, runs / "logs", lock, bar)
            if self._signals:
                raise KeyboardInterrupt
        return [folder for job in jobs if (folder := job.finished())]

    def _print(self, text: str) -> None:
        print_line(self.console, text)

    def _print_other_commits(self, done: Sequence[Path]) -> None:
        """Name other commits that finished runs: whether they compare, the reader judges."""
        finals = [(read_stages(folder) or [("", folder)])[-1][1] for folder in done]
        others = {read_provenance(folder).get("commit") for folder in finals} - {own_commit()}
        if others:
            named = ", ".join(str(commit)[:12] for commit in others)
            self._print(f"used as they are, though finished by other commits: {named}")

    def _progress(self, total: int, done: int) -> Progress:
        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = not is_live(self.console)
        bar = Progress(*columns, console=self.console, transient=True, disable=hidden)
        bar.add_task("runs", total=total, completed=done)
        return bar

    @contextmanager
    def _counting_signals(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM inside the block instead of being interrupted by them."""

        def count(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        before = {kind: signal.signal(kind, count) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _run(self, missing: Sequence[Job], logs: Path, lock: int, bar: Progress) -> None:
        waiting, running, passed_on, pace = list(missing), list[Running](), 0, Pace()
        logs.mkdir(parents=True, exist_ok=True)
        while running or (waiting and not self._signals):
            free = set(range(self.processes)) - {run.slot for run in running}
            if waiting and free and not self._signals:
                job = waiting.pop(0)
                log = logs / f"{job.parent.name}_seed_{job.seed}.log"
                try:
                    running.append(self._start(job, min(free), log, lock))
                except OSError as error:
                    self._fail(job, str(error), log)
                continue
            time.sleep(0.1)
            if self._signals > passed_on:
                passed_on = self._pass_on(running)
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                self._conclude(run)
                bar.advance(bar.task_ids[0])
            names = ", ".join(run.job.name for run in running)
            bar.update(bar.task_ids[0], description=names or "runs")
            if bar.disable and names and pace.due():
                left = len(waiting) + len(running)
                far = "; ".join(run.progress() for run in running)
                self._print(f"after {duration(pace.seconds)}: {left} to finish; running: {far}")

    def _pass_on(self, running: Sequence[Running]) -> int:
        """Let every run save a checkpoint and end; kill them on a second signal."""
        received = self._signals
        if received == 1:
            self._print("Stopping; every run saves a checkpoint. Run it again to resume.")
        for run in running:
            if received == 1:
                run.process.send_signal(signal.SIGINT)
            else:
                os.killpg(run.process.pid, signal.SIGKILL)
        return received

    def _start(self, job: Job, slot: int, log: Path, lock: int) -> Running:
        words = [sys.executable, "-m", "dograph", "run", str(job.recipe), *job.overrides]
        words += ["--mixers", str(self.mixers)] if self.mixers else []
        environment = {**os.environ, **environment_of(slot, self.processes, self.threads)}
        environment["PYTHONSAFEPATH"] = "1"  # import nothing from the working folder
        process = start_run(words, environment, log, lock)
        return Running(job, process, log, slot, time.monotonic())

    def _conclude(self, run: Running) -> None:
        code, seconds = run.process.returncode, time.monotonic() - run.began
        folder = run.job.finished() if code == 0 else None
        if folder is None:
            if not self._signals:
                self._fail(run.job, f"exit code {code}", run.log)
            return
        summary = read_mapping(folder / SUMMARY)
        ends = {name: summary.get(f"{name}_loss") for name in ("target", "mean", "worst")}
        shown = [
            f"{name} {loss:.4f}" if isinstance(loss, float) else f"{name} none"
            for name, loss in ends.items()
        ]
        self._print(f"{run.job.name}: loss of {', '.join(shown)}, {seconds:,.0f} s")

    def _fail(self, job: Job, reason: str, log: Path) -> None:
        self.failures.append(Failure(job, reason, log))
        self._print(f"{job.name}: failed ({reason}), see {log}")


def start_run(
    words: Sequence[str], environment: Mapping[str, str], log: Path, lock: int
) -> subprocess.Popen[bytes]:
    """Start a run's command, whose output goes to its log; ``lock`` is the sweep's descriptor."""
    with log.open("ab") as file:
        return subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],  # a run that outlives its sweep keeps the next sweep waiting
            start_new_session=True,  # it receives Ctrl-C once, from there
        )


def environment_of(slot: int, processes: int, threads: int | None) -> dict[str, str]:
    """Environment variables by which the run in ``slot``, [0, processes), shares cores and GPUs."""
    shared = {}
    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        each = threads or max(len(os.sched_getaffinity(0)) // processes, 1)
        shared["OMP_NUM_THREADS"] = str(each)
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = given.split(",") if given else list(map(str, range(torch.cuda.device_count())))
    if len(devices) >= processes > 1:
        share = len(devices) // processes
        shared["CUDA_VISIBLE_DEVICES"] = ",".join(devices[slot * share : (slot + 1) * share])
    return shared
