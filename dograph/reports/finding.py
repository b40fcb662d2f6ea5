"""What a run's mixer found, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate
from dograph.mixers.target import EVEN, WORST

Floats = npt.NDArray[np.float64]
CLEAR = 2.0
"""Standard errors by which a source's influence must exceed the others' mean."""
NOTABLE = 0.05
"""Share by which a weight must exceed its prior."""
MOST_NAMED = 3
"""Sources that a sentence names."""


def finding(snapshot: MixerSnapshot) -> str | None:
    """Which sources the run's target needs, and how sure that is.

    A source is named where its influence on the target exceeds the mean of the others, weighted by
    the prior, by two standard errors of the difference, and its weight exceeds its prior by 0.05.

    Returns:
        A sentence, or None for a mixer that measures no influence, or has not yet.
    """
    schedule = snapshot.schedule
    if schedule is None:
        return None
    last, target = schedule.updates[-1], target_name(schedule.target)
    if not last.terms:
        return f"The solver failed at step {last.step}: the prior is drawn."
    named = outstanding(schedule)
    before = _before(schedule, named)
    if not named:
        return _nothing(schedule, last, target) + before
    most = sum(last.weights[index] for index in named) >= 0.5
    what = f"most of what {target} needs" if most else f"what {target} needs more of"
    influences = _listed([_influence(last, index) for index in named])
    rest = sorted(set(range(len(schedule.sources))) - set(named), key=lambda i: last.influence[i])
    following = f"; next {schedule.sources[rest[-1]]} {_influence(last, rest[-1])}" if rest else ""
    measured = f"{_source(schedule)}.{before}"
    weights = _weights(schedule, last, named)
    return f"{weights} at the end: {what} (influence {influences}{following}), {measured}"


def outstanding(schedule: ScheduleSnapshot, update: int = -1) -> list[int]:
    """Sources that stand out at an update, by default the last; the largest weight first."""
    last, prior = schedule.updates[update], np.array(schedule.prior_weights)
    others = 1 - prior
    if not (others > 0).all():  # a single source
        return []
    influence, variance = np.array(last.influence), _variance(last)
    means = (prior @ influence - prior * influence) / others
    of_means = (prior**2 @ variance - prior**2 * variance) / others**2
    clear = influence - means > CLEAR * np.sqrt(variance + of_means)
    raised = np.array(last.weights) - prior > NOTABLE
    named = np.flatnonzero(clear & raised).tolist()
    return sorted(named, key=lambda index: -last.weights[index])


def _variance(update: ScheduleUpdate) -> Floats:
    """(m,) squared errors, none below their mean: each alone is from two halves and rough."""
    squares = np.square(np.array(update.error))
    return np.maximum(squares, squares.mean())


def target_name(target: str) -> str:
    """A target's label as a sentence says it."""
    return {EVEN: "the even target", WORST: "the worst domain"}.get(target, target)


def _before(schedule: ScheduleSnapshot, named: Sequence[int]) -> str:
    """A further sentence on what stood out when all was measured, and does so no longer."""
    gone = [index for index in outstanding(schedule, 0) if index not in named]
    then = schedule.updates[0]
    return f" At step {then.step}: {_weights(schedule, then, gone)}." if gone else ""


def _source(schedule: ScheduleSnapshot) -> str:
    by_step = schedule.measured
    return f"measured by step {by_step}" if by_step else "by the domains' text"


def _nothing(schedule: ScheduleSnapshot, last: ScheduleUpdate, target: str) -> str:
    start = f"No source stands out for {target}: "
    moves = np.array(last.weights) - np.array(schedule.prior_weights)
    most, largest = int(moves.argmax()), float(np.abs(moves).max())
    if moves[most] > NOTABLE:
        before, after = schedule.prior_weights[most], last.weights[most]
        return f"{start}{schedule.sources[most]} rose most, from {before:.2f} to {after:.2f}."
    within = f", within {largest:.2f}" if largest >= 0.005 else ""
    return f"{start}the prior is kept{within}."


def _weights(schedule: ScheduleSnapshot, update: ScheduleUpdate, indices: Sequence[int]) -> str:
    return _listed([f"{schedule.sources[index]} {update.weights[index]:.2f}" for index in indices])


def _influence(update: ScheduleUpdate, index: int) -> str:
    influence, error = f"{update.influence[index]:.2f}", update.error[index]
    return f"{influence} ± {error:.2f}" if error >= 0.005 else influence


def what_limits_cost(prices: Mapping[str, float]) -> str | None:
    """Which limits held the last mixture back, the dearest first; None for none."""
    dearest = sorted((name for name in prices if prices[name] > 0), key=lambda name: -prices[name])
    if not dearest:
        return None
    listed = _listed([f"{name} (price {prices[name]:.2g})" for name in dearest])
    return f"Limits that held the last mixture back: {listed}."


def _listed(texts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 4 more``."""
    kept = list(texts[:MOST_NAMED])
    if len(texts) > MOST_NAMED:
        kept.append(f"{len(texts) - MOST_NAMED} more")
    return kept[0] if len(kept) == 1 else f"{', '.join(kept[:-1])} and {kept[-1]}"
