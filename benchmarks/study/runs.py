"""The study's runs: ``RUNS/CASE/METHOD/seed_N``; what is finished stays, the rest is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.study.ablation import FOLDER, changes
from benchmarks.study.cases import BEST_FIXED, SCHEDULE, Case, overrides_of, recipe_of
from dograph.errors import UserError
from dograph.experiments.oracle.search import Oracle
from dograph.experiments.plan import Corpora
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.sweep import Failure, Job, Sweep, job_of
from dograph.files.atomic import read_mapping
from dograph.files.run_dir import PROVENANCE, SUMMARY


@dataclass
class Runs:
    """Where and how the study's runs are made."""

    folder: Path
    """of all cases."""
    overrides: Sequence[str]
    """of every run: model, trainer, and what the user adds."""
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    processes: int = 1
    """runs at once."""
    threads: int | None = None
    """of each run. None: as in a sweep."""
    corpus: Path | None = None
    """folder of the second corpus."""
    fixed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """weights of the best fixed mixture by case."""
    console: Console = field(default_factory=Console)
    failures: list[Failure] = field(init=False, default_factory=list)
    """of all runs so far."""
    _corpora: Corpora = field(init=False, default_factory=Corpora)

    def can_run(self, case: Case) -> bool:
        """Whether the case's corpus is there."""
        return not case.given or self.corpus is not None

    def run(self, case: Case, methods: Iterable[str]) -> None:
        """Run a case's missing runs of some methods; a best fixed mixture only if it is known."""
        known = [each for each in methods if each != BEST_FIXED or case.name in self.fixed]
        wanted = [(each, recipe_of(each), self._of_method(case, each)) for each in known]
        self._run(case, self.folder / case.name, wanted)

    def run_ablation(self, case: Case) -> None:
        """Run a case's missing runs of the schedule with one change each."""
        common = self._of_case(case)
        wanted = [
            (name, recipe_of(SCHEDULE), (*common, *changed)) for name, changed in changes().items()
        ]
        self._run(case, self.folder / case.name / FOLDER, wanted)

    def run_oracle(self, case: Case) -> None:
        """Search the case's best fixed mixture, and validate it over as many seeds."""
        runs = f"runs={self.folder / case.name}"
        file = RecipeFile(recipe_of(BEST_FIXED), (*self._of_case(case), runs, "seed=0"))
        shares = (self.processes, self.threads)
        Oracle(file, None, 2, len(self.seeds), *shares, console=self.console).run()

    def _of_case(self, case: Case) -> tuple[str, ...]:
        source = (f"corpus.source={self.corpus}",) if case.given else ()
        return (*case.overrides, *source, *self.overrides)

    def _of_method(self, case: Case, method: str) -> tuple[str, ...]:
        own = overrides_of(method, case, self.fixed.get(case.name))
        return (*self._of_case(case), *own)

    def _run(
        self, case: Case, folder: Path, wanted: Sequence[tuple[str, Path, tuple[str, ...]]]
    ) -> None:
        """Run what is missing of (name, recipe, overrides), seed by seed."""
        if not self.can_run(case):
            raise UserError(f"{case.name} needs the second corpus: name its folder with --corpus")
        jobs = list[Job]()
        for seed in self.seeds:
            for name, recipe, overrides in wanted:
                if not is_finished(folder / name, seed):
                    given = (*overrides, f"name={name}", f"runs={folder}")
                    jobs.append(job_of(recipe, seed, given, self._corpora))
        if jobs:
            check_corpus(folder, {store.fingerprint for store in self._corpora.stores})
            sweep = Sweep((), (), (), self.processes, self.threads, console=self.console)
            sweep.run_jobs(jobs)
            self.failures += sweep.failures


def check_corpus(folder: Path, prepared: set[str]) -> None:
    """Refuse to run beside finished runs on other text, with which nothing would compare.

    The environment's text is that of the installed packages: one that is added changes it.
    """
    for path in sorted(folder.glob(f"**/{PROVENANCE}")):
        found = read_mapping(path).get("fingerprint")
        if found not in (None, *prepared):
            raise UserError(
                f"{path.parent} was trained on the corpus {found}, but what is prepared now is "
                f"{', '.join(sorted(prepared))}: give the store of that corpus by --set "
                "corpus.source=STORE, or name another folder with --runs"
            )


def is_finished(folder: Path, seed: int) -> bool:
    """Whether a method's folder has a finished run with this seed, wherever it was made."""
    names = (f"seed_{seed}/{SUMMARY}", f"seed_{seed}_*/{SUMMARY}")
    return any(True for name in names for _ in folder.glob(name))


def has_runs(folder: Path) -> bool:
    """Whether a method's folder has any finished run."""
    return any(True for _ in folder.glob(f"seed_*/{SUMMARY}"))
