"""A method over its seeds, and against the baseline with the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dograph.experiments.comparison import statistics
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.comparison.statistics import Estimate, estimate

Pairs = Sequence[tuple[ComparedRun, ComparedRun]]
"""Runs of a method, each with the baseline's run of the same seed."""


@dataclass(frozen=True)
class Paired:
    """A method's differences in nats to the baseline with the same seeds; below zero is better.

    They are of the target's loss, of the mean loss over domains, of the worst domain's loss, and
    of each domain's; ``p`` is of a paired t-test on ``target``, adjusted for all methods at once
    (Holm), and ``level`` the unadjusted p below which that would be a claim.
    """

    target: Estimate
    mean: Estimate
    worst: Estimate
    domains: dict[str, Estimate]
    p: float
    level: float

    @property
    def verdict(self) -> statistics.Verdict:
        """On the target, by ``p``."""
        return statistics.verdict(self.target, self.p)

    @property
    def detectable(self) -> float | None:
        """Smallest true difference of the target that four of five such studies would find."""
        return statistics.detectable(self.target, self.level)


@dataclass(frozen=True)
class TimeToTarget:
    """What it took to come down to the target's loss at the baseline's end, all stages counted.

    Tokens and seconds of training are over the ``reached`` of all compared seeds that got there;
    None if none did.
    """

    tokens: Estimate | None
    seconds: Estimate | None
    reached: int
    seeds: int


@dataclass(frozen=True)
class Method:
    """One method over its seeds.

    Attributes:
        name: the recipe's name; ``label`` is the name as tables show it.
        runs: by seed, rising.
        target: the target's loss at the end, in nats a token; ``mean`` is the mean over all
            domains, ``worst`` the highest of a domain.
        domains: loss of each domain.
        cost: tokens, flops and seconds of all stages.
        accuracies: mean accuracy of each suite of downstream tasks that all runs have.
        paired: differences to the baseline; None for the baseline, or without a common seed.
        time_to_target: None without a common seed, or where a run has no history.
    """

    name: str
    label: str
    runs: tuple[ComparedRun, ...]
    target: Estimate
    mean: Estimate
    worst: Estimate
    domains: dict[str, Estimate]
    cost: dict[str, Estimate]
    accuracies: dict[str, Estimate]
    paired: Paired | None
    time_to_target: TimeToTarget | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(run.seed for run in self.runs)


def summarise_method(
    name: str, label: str, runs: Sequence[ComparedRun], baseline: Sequence[ComparedRun]
) -> Method:
    """Sums a method's runs up, and pairs them by seed with the baseline's, if it is another."""
    by_seed = {run.seed: run for run in baseline}
    pairs = [(run, by_seed[run.seed]) for run in runs if run.seed in by_seed]
    return Method(
        name=name,
        label=label,
        runs=tuple(runs),
        target=estimate([run.target_loss for run in runs]),
        mean=estimate([run.mean_loss for run in runs]),
        worst=estimate([run.worst_loss for run in runs]),
        domains=_estimates([run.losses for run in runs]),
        cost=_estimates([run.cost for run in runs]),
        accuracies=_estimates([run.accuracies for run in runs]),
        paired=_paired(pairs) if pairs and runs is not baseline else None,
        time_to_target=_time_to_target(pairs) if pairs else None,
    )


def _estimates(by_run: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    """An estimate of each value that every run has, by name."""
    names = [name for name in by_run[0] if all(name in values for values in by_run)]
    return {name: estimate([values[name] for values in by_run]) for name in names}


def _paired(pairs: Pairs) -> Paired:
    target = estimate([run.target_loss - base.target_loss for run, base in pairs])
    domains = [
        {name: loss - base.losses[name] for name, loss in run.losses.items()} for run, base in pairs
    ]
    return Paired(
        target=target,
        mean=estimate([run.mean_loss - base.mean_loss for run, base in pairs]),
        worst=estimate([run.worst_loss - base.worst_loss for run, base in pairs]),
        domains=_estimates(domains),
        p=statistics.p_value(target.values),
        level=1 - statistics.CONFIDENCE,
    )


def _time_to_target(pairs: Pairs) -> TimeToTarget | None:
    if not all(run.has_history for run, _ in pairs):
        return None
    tokens, seconds = [], []
    for run, base in pairs:
        points, before = run.history.validations, run.earlier_cost
        curve = [run.target.loss(point.losses) for point in points]
        at_tokens, at_seconds = (
            statistics.first_reach(
                [getattr(point, axis) for point in points], curve, base.target_loss
            )
            for axis in ("tokens", "seconds")
        )
        if at_tokens is not None and at_seconds is not None:
            tokens.append(before["tokens"] + at_tokens)
            seconds.append(before["seconds"] + at_seconds)
    return TimeToTarget(
        tokens=estimate(tokens) if tokens else None,
        seconds=estimate(seconds) if seconds else None,
        reached=len(tokens),
        seeds=len(pairs),
    )
