"""Methods against a baseline, paired by seed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dograph.errors import UserError
from dograph.experiments.comparison.conditions import check_comparable, check_methods
from dograph.experiments.comparison.runs import ComparedRun, find_runs, unfinished
from dograph.experiments.comparison.statistics import (
    Estimate,
    Verdict,
    estimate,
    first_reach,
    holm,
    p_value,
    verdict,
)
from dograph.experiments.recipe.compose import nearest

FEWEST_SEEDS = 5
"""For a claim; fewer show a direction."""


@dataclass(frozen=True)
class Paired:
    """A method's differences to the baseline with the same seeds; below zero is better.

    Attributes:
        mean: of the mean loss over domains, in nats.
        worst: of the worst domain's loss, in nats.
        domains: of each domain's loss, in nats.
        p: of a paired t-test on ``mean``, adjusted for all methods at once (Holm).
    """

    mean: Estimate
    worst: Estimate
    domains: dict[str, Estimate]
    p: float

    @property
    def verdict(self) -> Verdict:
        """On the mean, by ``p``."""
        return verdict(self.mean, self.p)


@dataclass(frozen=True)
class Reach:
    """What it took to come down to the mean loss at the baseline's end, all stages counted.

    Attributes:
        tokens: over the seeds that got there; None if none did.
        seconds: of training, likewise.
        reached: seeds that got there.
        seeds: that were asked.
    """

    tokens: Estimate | None
    seconds: Estimate | None
    reached: int
    seeds: int


@dataclass(frozen=True)
class Method:
    """One method over its seeds.

    Attributes:
        name: the recipe's name.
        label: the name as tables show it.
        runs: by seed, rising.
        mean: loss over domains at the end, in nats a token.
        worst: highest loss of a domain.
        domains: loss of each domain.
        cost: tokens, flops and seconds of all stages.
        accuracies: mean accuracy of each suite of downstream tasks that all runs have.
        paired: differences to the baseline; None for the baseline, or without a common seed.
        reach: None without a common seed.
    """

    name: str
    label: str
    runs: tuple[ComparedRun, ...]
    mean: Estimate
    worst: Estimate
    domains: dict[str, Estimate]
    cost: dict[str, Estimate]
    accuracies: dict[str, Estimate]
    paired: Paired | None
    reach: Reach | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(run.seed for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Methods in one table.

    Attributes:
        methods: the baseline first, then by mean loss, lowest first.
        notes: what a reader must know beside the numbers, a sentence each.
    """

    methods: tuple[Method, ...]
    notes: tuple[str, ...]

    @property
    def baseline(self) -> Method:
        """What the others are compared with."""
        return self.methods[0]

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites of downstream tasks that some method has been evaluated on."""
        return tuple(dict.fromkeys(s for method in self.methods for s in method.accuracies))

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of the weights."""
        return tuple(self.baseline.domains)


def compare(
    paths: Sequence[Path], baseline: str | None = None, allowed: Collection[str] = ()
) -> Comparison:
    """Compares the finished runs in and below some folders.

    Args:
        paths: of runs, of a recipe's runs, or of all runs.
        baseline: name of a method. None: the one whose mixer is Stratified.
        allowed: conditions that may differ, see ``conditions.CONDITIONS``.

    Raises:
        UserError: if there is nothing to compare, or it is not comparable.
    """
    runs = find_runs(paths)
    check_methods(runs)
    notes = check_comparable(runs, allowed)
    domains = runs[0].losses.keys()
    for run in runs:
        if run.losses.keys() != domains:
            raise UserError(
                f"{run.folder} has the domains {', '.join(run.losses)}, but {runs[0].folder} has "
                f"{', '.join(domains)}: their means do not compare"
            )
    by_name: dict[str, list[ComparedRun]] = {}
    for run in runs:
        by_name.setdefault(run.method, []).append(run)
    first = _baseline(by_name, baseline)
    names = [first, *(name for name in by_name if name != first)]
    alike = _tasks_alike(runs)
    if not alike:
        notes.append("Accuracies are left out: the runs' tasks were not evaluated alike.")
    grouped = {name: sorted(by_name[name], key=lambda run: run.seed) for name in names}
    labels = dict(zip(names, _labels(names), strict=True))
    base = {run.seed: run for run in grouped[first]}
    methods = [
        _method(name, labels[name], grouped[name], None if name == first else base, alike)
        for name in names
    ]
    methods[1:] = sorted(methods[1:], key=lambda method: method.mean.mean)
    return Comparison(
        tuple(_adjusted(methods)), (*notes, *_notes(methods), *_left_out(unfinished(paths)))
    )


def _baseline(by_name: dict[str, list[ComparedRun]], asked: str | None) -> str:
    if asked is None:
        stratified = [n for n, runs in by_name.items() if runs[0].summary.mixer == "Stratified"]
        if len(stratified) == 1:
            return stratified[0]
        raise UserError(f"name the baseline: --baseline, one of {', '.join(by_name)}")
    if asked in by_name:
        return asked
    short = dict(zip(_labels(list(by_name)), by_name, strict=True))
    if asked.replace("_", " ") in short:
        return short[asked.replace("_", " ")]
    raise UserError(
        f"--baseline {asked}: there is no such method{nearest(asked, list(by_name))} (there are: "
        f"{', '.join(by_name)})"
    )


def _labels(names: Sequence[str]) -> list[str]:
    """Names without the last word that all of them share (`_gpt2`), in plain words."""
    ends = {name.rpartition("_")[2] for name in names}
    shared = f"_{ends.pop()}" if len(ends) == 1 and all("_" in name for name in names) else ""
    return [name.removesuffix(shared).replace("_", " ") for name in names]


def _tasks_alike(runs: Sequence[ComparedRun]) -> bool:
    """Whether every task was evaluated under the same conditions in all runs that have it."""
    seen: dict[str, tuple[object, ...]] = {}
    found = [item for run in runs for item in run.task_conditions.items()]
    return all(seen.setdefault(name, condition) == condition for name, condition in found)


def _method(
    name: str,
    label: str,
    runs: Sequence[ComparedRun],
    base: dict[int, ComparedRun] | None,
    with_accuracies: bool,
) -> Method:
    """Sums up a method's runs; ``base`` has the baseline's by seed, None for itself."""
    ends = [run.losses for run in runs]
    pairs = [(run, run if base is None else base.get(run.seed)) for run in runs]
    common = [(run, other) for run, other in pairs if other is not None]
    return Method(
        name,
        label,
        tuple(runs),
        estimate([run.mean_loss for run in runs]),
        estimate([run.worst_loss for run in runs]),
        {domain: estimate([end[domain] for end in ends]) for domain in ends[0]},
        {key: estimate([run.cost[key] for run in runs]) for key in runs[0].cost},
        {
            suite: estimate([run.accuracies[suite] for run in runs])
            for suite in runs[0].accuracies
            if with_accuracies and all(suite in run.accuracies for run in runs)
        },
        _paired(common) if common and base is not None else None,
        _reach(common) if common else None,
    )


def _paired(pairs: Sequence[tuple[ComparedRun, ComparedRun]]) -> Paired:
    mean = estimate([run.mean_loss - other.mean_loss for run, other in pairs])
    return Paired(
        mean,
        estimate([run.worst_loss - other.worst_loss for run, other in pairs]),
        {
            domain: estimate([run.losses[domain] - other.losses[domain] for run, other in pairs])
            for domain in pairs[0][0].losses
        },
        p_value(mean.values),
    )


def _adjusted(methods: Sequence[Method]) -> list[Method]:
    """The methods with p-values for looking at all of them."""
    found = [method.paired.p for method in methods if method.paired is not None]
    adjusted = iter(holm(found))
    return [
        replace(method, paired=replace(method.paired, p=next(adjusted)))
        if method.paired is not None
        else method
        for method in methods
    ]


def _reach(pairs: Sequence[tuple[ComparedRun, ComparedRun]]) -> Reach:
    tokens, seconds = [], []
    for run, other in pairs:
        points, before = run.history.validations, run.earlier_cost
        curve = [sum(point.losses.values()) / len(point.losses) for point in points]
        at_tokens = first_reach([point.tokens for point in points], curve, other.mean_loss)
        at_seconds = first_reach([point.seconds for point in points], curve, other.mean_loss)
        if at_tokens is not None and at_seconds is not None:
            tokens.append(before["tokens"] + at_tokens)
            seconds.append(before["seconds"] + at_seconds)
    return Reach(
        estimate(tokens) if tokens else None,
        estimate(seconds) if seconds else None,
        len(tokens),
        len(pairs),
    )


def _notes(methods: Sequence[Method]) -> list[str]:
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
    pairs = [len(method.paired.mean.values) for method in methods if method.paired is not None]
    fewest = min([len(base.runs), *pairs])
    if fewest < FEWEST_SEEDS:
        notes.append(
            f"Fewer than {FEWEST_SEEDS} seeds ({fewest}) show a direction and are no claim."
        )
    return notes


def _left_out(folders: Sequence[Path]) -> list[str]:
    if not folders:
        return []
    named = ", ".join(map(str, folders[:4])) + (" …" if len(folders) > 4 else "")
    return [f"Left out, for they did not come to their end: {named}."]
