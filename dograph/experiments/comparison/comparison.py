"""Methods against a baseline, paired by seed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dograph.errors import UserError, nearest
from dograph.experiments.comparison.conditions import check_comparable, check_methods
from dograph.experiments.comparison.gap import Gap, gap_of, other_oracles
from dograph.experiments.comparison.methods import Method, summarise_method
from dograph.experiments.comparison.noise_floor import noise_notes
from dograph.experiments.comparison.runs import ComparedRun, by_method, find_runs, unfinished
from dograph.experiments.comparison.statistics import FEWEST_SEEDS, holm, holm_levels
from dograph.files.run_dir import OF_ORACLE
from dograph.mixers.target import Target
from dograph.terminal.tables import as_html


@dataclass(frozen=True)
class Comparison:
    """Methods in one table.

    Attributes:
        methods: the baseline first, then by the target's loss, lowest first.
        notes: what a reader must know beside the numbers, a sentence each.
        gap: how far the best fixed mixture is ahead of the baseline, and the methods' shares of
            that; None without an oracle's runs.
    """

    methods: tuple[Method, ...]
    notes: tuple[str, ...]
    gap: Gap | None = None

    @property
    def baseline(self) -> Method:
        """What the others are compared with."""
        return self.methods[0]

    @property
    def target(self) -> Target:
        """What all methods are judged by: the baseline's target."""
        return self.baseline.runs[0].target

    @property
    def runs(self) -> tuple[ComparedRun, ...]:
        """Of all methods, in their order."""
        return tuple(run for method in self.methods for run in method.runs)

    def records(self) -> list[dict[str, Any]]:
        """The numbers of every run, for ``pandas.DataFrame``; as ``comparison.csv`` has them."""
        from dograph.experiments.comparison import tables

        return [tables.record(run, self) for run in self.runs]

    def _repr_html_(self) -> str:
        """The table of `dograph compare`, in a notebook."""
        from dograph.experiments.comparison import tables

        return as_html(tables.as_table(self))

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites of downstream tasks that some method has been evaluated on."""
        return tuple(dict.fromkeys(s for method in self.methods for s in method.accuracies))

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of the weights."""
        return tuple(self.baseline.domains)


def compare(
    paths: Sequence[Path | str], baseline: str | None = None, allowed: Collection[str] = ()
) -> Comparison:
    """Compares the finished runs in and below folders; a UserError if they are not comparable.

    Args:
        paths: folders of runs, of a recipe's runs, or of all runs.
        baseline: name of a method. None: the one whose mixer is Stratified.
        allowed: conditions that may differ, see ``conditions.CONDITIONS``.
    """
    folders = [Path(path) for path in paths]
    runs = find_runs(folders)
    notes = [*check_methods(runs), *check_comparable(runs, allowed)]
    _check_domains(runs)
    methods = _methods(by_method(runs), baseline)
    if not _tasks_alike(runs):
        methods = [replace(method, accuracies={}) for method in methods]
        notes.append("Accuracies are left out: the runs' tasks were not evaluated alike.")
    notes += _stale_notes(runs)
    gap = gap_of(methods)
    notes += [gap.note] if gap and gap.note else []
    notes += other_oracles(methods)
    notes += [*_pairing_notes(methods), *_unfinished_notes(unfinished(folders))]
    return Comparison(tuple(methods), (*noise_notes(methods), *notes), gap)


def _check_domains(runs: Sequence[ComparedRun]) -> None:
    domains = runs[0].losses.keys()
    for run in runs:
        if run.losses.keys() != domains:
            raise UserError(
                f"{run.folder} has the domains {', '.join(run.losses)}, but {runs[0].folder} has "
                f"{', '.join(domains)}: their losses do not compare"
            )


def _methods(runs: dict[str, list[ComparedRun]], asked: str | None) -> list[Method]:
    """The baseline, then the others by target, their p-values adjusted for all of them."""
    first = _baseline(runs, asked)
    target = runs[first][0].target
    if any(run.target != target for same in runs.values() for run in same):  # as was allowed
        runs = {name: [replace(run, judged_by=target) for run in runs[name]] for name in runs}
    for same in runs.values():
        same.sort(key=lambda run: run.seed)
    names = [first, *(name for name in runs if name != first)]
    labels = zip(names, _labels(names), strict=True)
    base, *others = (summarise_method(*names, runs[names[0]], runs[first]) for names in labels)
    others.sort(key=lambda method: method.target.mean)
    return [base, *_adjusted(others)]


def _adjusted(methods: Sequence[Method]) -> list[Method]:
    """The methods with p-values and levels for being looked at together."""
    p_values = [method.paired.p for method in methods if method.paired]
    adjusted, levels = iter(holm(p_values)), iter(holm_levels(p_values))
    return [
        replace(method, paired=replace(method.paired, p=next(adjusted), level=next(levels)))
        if method.paired
        else method
        for method in methods
    ]


def _baseline(runs: dict[str, list[ComparedRun]], asked: str | None) -> str:
    if asked is None:
        stratified = [name for name, same in runs.items() if same[0].summary.mixer == "Stratified"]
        if len(stratified) == 1:
            return stratified[0]
        raise UserError(f"name the baseline: --baseline, one of {', '.join(runs)}")
    if asked in runs:
        return asked
    by_label = dict(zip(_labels(list(runs)), runs, strict=True))
    if name := by_label.get(asked.replace("_", " ")):
        return name
    raise UserError(
        f"--baseline {asked}: there is no such method{nearest(asked, list(runs))} (there are: "
        f"{', '.join(runs)})"
    )


def _labels(names: Sequence[str]) -> list[str]:
    """Names without the last word that all of their recipes share (`_gpt2`), in plain words."""
    recipes = [name.removesuffix(OF_ORACLE) for name in names]
    ends = {recipe.rpartition("_")[2] for recipe in recipes}
    shared = f"_{ends.pop()}" if len(ends) == 1 and all("_" in name for name in recipes) else ""
    cut = [
        recipe.removesuffix(shared) + name[len(recipe) :]
        for name, recipe in zip(names, recipes, strict=True)
    ]
    return [name.replace("_", " ") for name in cut]


def _tasks_alike(runs: Sequence[ComparedRun]) -> bool:
    """Whether every task was evaluated under the same conditions in all runs that have it."""
    first: dict[str, tuple[object, ...]] = {}
    tasks = [item for run in runs for item in run.task_conditions.items()]
    return all(first.setdefault(name, conditions) == conditions for name, conditions in tasks)


def _stale_notes(runs: Sequence[ComparedRun]) -> list[str]:
    return [
        f"Accuracies of {run.final} are left out: they are of an earlier checkpoint. Evaluate its "
        f"tasks again: {', '.join(run.stale_tasks)}."
        for run in runs
        if run.stale_tasks
    ]


def _pairing_notes(methods: Sequence[Method]) -> list[str]:
    base = methods[0]
    notes, partly = [], dict[str, list[str]]()
    for method in methods[1:]:
        common = set(method.seeds) & set(base.seeds)
        if not common:
            notes.append(f"{method.label} shares no seed with {base.label}: not paired.")
        elif len(common) < len(set(method.seeds) | set(base.seeds)):
            partly.setdefault(", ".join(map(str, sorted(common))), []).append(method.label)
    for seeds, labels in partly.items():
        notes.append(f"Paired with {base.label} by seeds {seeds} only: {', '.join(labels)}.")
    return [*notes, *_few_seeds_notes(methods)]


def _few_seeds_notes(methods: Sequence[Method]) -> list[str]:
    """Which methods have too few pairs for a claim; their names only if others have enough."""
    paired = {each.label: len(each.paired.target.values) for each in methods if each.paired}
    counts = paired or {methods[0].label: len(methods[0].runs)}
    few = {label: count for label, count in counts.items() if count < FEWEST_SEEDS}
    if not few:
        return []
    named = f": {', '.join(few)}" if len(few) < len(counts) else ""
    fewest = min(few.values())
    return [f"Fewer than {FEWEST_SEEDS} seeds ({fewest}) show a direction and are no claim{named}."]


def _unfinished_notes(folders: Sequence[Path]) -> list[str]:
    if not folders:
        return []
    named = ", ".join(map(str, folders[:4])) + (" …" if len(folders) > 4 else "")
    return [f"Left out because they did not finish: {named}."]
