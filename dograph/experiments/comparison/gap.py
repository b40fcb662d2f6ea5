"""The share of an oracle's gain over the baseline that each method reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dograph.experiments.comparison.methods import Method
from dograph.experiments.comparison.statistics import CONFIDENCE, Estimate, estimate
from dograph.files.atomic import read_json
from dograph.files.run_dir import ORACLE

RESAMPLES = 10_000
OF_THE_GAP = (
    " Of the gap: the mean gain over the baseline, divided by the oracle's, the best fixed "
    "mixture's, with the 95 % interval of a bootstrap over the seeds that all three have."
)
"""What the column of shares means."""


@dataclass(frozen=True)
class Share:
    """A method's mean gain over the baseline, divided by the oracle's mean gain.

    ``low`` and ``high`` are the ends of its 95 % interval: of a bootstrap over the ``seeds`` that
    baseline, method and oracle have in common; None for one seed, and for the oracle itself.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        """Percent with the interval: "92 % [85, 99]"."""
        shown = f"{100 * self.mean:.0f} %"
        if self.low is not None and self.high is not None:
            shown += f" [{100 * self.low:.0f}, {100 * self.high:.0f}]"
        return shown.replace("-", "−")


@dataclass(frozen=True)
class Gap:
    """How far an oracle is ahead of the baseline, and each method's share of it.

    Attributes:
        oracle: name of the oracle's runs.
        ahead: the gap in nats, paired by seed.
        shares: by the methods' names; without the baseline, and without any if the interval of
            ``ahead`` does not lie above zero, or that of the seeds that a method shares.
        note: why there are none, or why some methods have none, a sentence.
    """

    oracle: str
    ahead: Estimate
    shares: dict[str, Share]
    note: str | None = None


def gap_of(methods: Sequence[Method], named: str | None = None) -> Gap | None:
    """The gap between the baseline, which comes first, and the best oracle; None without one.

    ``named`` is a method that counts as an oracle, too.
    """
    base, *others = methods
    best = [method for method in others if method.name == named or is_oracle(method)]
    oracles = [each for each in best if each.paired is not None and _same_target(each, base)]
    if not oracles:
        return None
    oracle = min(oracles, key=lambda method: method.target.mean)
    assert oracle.paired is not None
    ahead = estimate([-difference for difference in oracle.paired.target.values])
    if not _is_surely_ahead(ahead):
        width = "" if ahead.half is None else f" ± {ahead.half:.3f}"
        by = f"{ahead.mean:.3f}{width} nats".replace("-", "−")
        reason = f"{oracle.label} is not surely ahead of {base.label} ({by})"
        return Gap(oracle.name, ahead, {}, f"No share of the gap is shown: {reason}.")
    shares = {method.name: _share(base, method, oracle) for method in others}
    shares[oracle.name] = Share(1.0, None, None, len(ahead.values))
    left_out = [m.label for m in others if shares[m.name] is None and m.paired is not None]
    note = (
        f"No share of the gap is shown for {', '.join(left_out)}: with the seeds that it, "
        f"{base.label} and {oracle.label} have in common, {oracle.label} is not surely ahead."
    )
    known = {name: each for name, each in shares.items() if each is not None}
    return Gap(oracle.name, ahead, known, note if left_out else None)


def other_oracles(methods: Sequence[Method]) -> list[str]:
    """Which oracles were searched for another target than methods are judged by, a sentence."""
    base, *others = methods
    aside = [each.label for each in others if is_oracle(each) and not _same_target(each, base)]
    judged = base.runs[0].target.label
    named = ", ".join(aside)
    return [f"No oracle of the target {judged}, so a method as others: {named}."] if aside else []


def _same_target(method: Method, base: Method) -> bool:
    """Whether a method's runs had the target by which all are judged."""
    judged = base.runs[0].target.description
    return all(run.own_target.description == judged for run in method.runs)


def _is_surely_ahead(gap: Estimate) -> bool:
    """Whether the interval of a gap lies above zero: a share of any other gap means nothing."""
    return gap.half is not None and gap.mean > gap.half


def is_oracle(method: Method) -> bool:
    """Whether all of a method's runs are those that an ``oracle.json`` above them validated."""
    return all(
        run.metadata.get("digest") in validated_digests(run.folder.parent) for run in method.runs
    )


def validated_digests(folder: Path) -> frozenset[str]:
    """Digests of the runs that the ``oracle.json`` in a folder names as validated; else empty."""
    try:
        content = read_json(folder / ORACLE)
        return frozenset(map(str, content["validated"]["digests"]))
    except (ValueError, OSError, LookupError, TypeError):
        return frozenset()


def _share(base: Method, method: Method, oracle: Method) -> Share | None:
    """A method's share over the seeds that all three have; None if these show no gap."""
    losses = [{run.seed: run.target_loss for run in each.runs} for each in (base, method, oracle)]
    seeds = sorted(set.intersection(*map(set, losses)))
    if not seeds:
        return None
    even, own, best = (np.array([of_seed[seed] for seed in seeds]) for of_seed in losses)
    return share(even - own, even - best) if _is_surely_ahead(estimate(even - best)) else None


def share(gains: np.ndarray, gaps: np.ndarray) -> Share:
    """(n,) gains of a method over (n,) gains of an oracle, seed by seed, as a ratio of means.

    The interval is that of a percentile bootstrap, which draws whole seeds, so that what a seed
    does to both stays together.
    """
    mean, count = float(gains.mean() / gaps.mean()), len(gains)
    if count < 2:
        return Share(mean, None, None, count)
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    tail = (1 - CONFIDENCE) / 2
    ratios = gains[drawn].mean(axis=1) / gaps[drawn].mean(axis=1)
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Share(mean, float(low), float(high), count)
