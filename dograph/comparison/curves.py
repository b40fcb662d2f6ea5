"""A method's curves over its seeds: means with bounds, at the points that all seeds have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dograph.comparison.comparison import Method
from dograph.comparison.runs import ComparedRun
from dograph.comparison.statistics import estimate
from dograph.report.history import MixtureHistory

Score = Literal["mean", "worst"]
SCORES: dict[Score, Callable[[Sequence[float]], float]] = {
    "mean": lambda losses: float(np.mean(losses)),
    "worst": lambda losses: float(np.max(losses)),  # NaN where one of them is
}
"""What is made of one validation's losses over domains."""


@dataclass(frozen=True)
class CurvePoint:
    """A curve at one point.

    Attributes:
        mean: over the seeds.
        bounds: of its 95 % interval; None for one seed.
    """

    mean: float
    bounds: tuple[float, float] | None


Curve = dict[int, CurvePoint]
"""Points by optimiser step or by tokens, rising."""


def score_curves(method: Method) -> dict[str, Curve]:
    """``mean_loss``, ``worst_loss`` in nats and both as perplexity, by optimiser step.

    The worst domain is looked for anew in each validation of each seed. A perplexity is ``exp``
    of the loss curve and of its bounds, so that its interval holds possible values only.
    """
    losses = {
        f"{score}_loss": over_seeds([_losses(run, score, "step") for run in method.runs])
        for score in SCORES
    }
    perplexities = {
        name.replace("loss", "perplexity"): {step: _exponential(at) for step, at in curve.items()}
        for name, curve in losses.items()
    }
    return {**losses, **perplexities}


def loss_curve(method: Method, score: Score) -> Curve:
    """Validation loss in nats, by tokens."""
    return over_seeds([_losses(run, score, "tokens") for run in method.runs])


def difference_curve(method: Method, baseline: Method, score: Score) -> Curve:
    """Validation loss less the baseline's with the same seed, by tokens."""
    base = {run.seed: _losses(run, score, "tokens") for run in baseline.runs}
    differences = []
    for run in method.runs:
        own, other = _losses(run, score, "tokens"), base.get(run.seed, {})
        differences.append({at: own[at] - other[at] for at in own if at in other})
    return over_seeds([points for points in differences if points])


def share_curves(method: Method, kind: Literal["weights", "effective"]) -> dict[str, Curve]:
    """Each domain's weight in the sampler, or its share of the loss weight, by optimiser step.

    Of an experiment with stages, these are the last stage's.
    """
    return _shares([run.history for run in method.runs], kind)


@dataclass(frozen=True)
class Trajectory:
    """How a mixture moved, in the mean over seeds.

    Attributes:
        steps: (t,) optimiser steps.
        shares: (t, S).
        meaning: of the shares.
    """

    steps: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]
    meaning: str


def trajectory(method: Method) -> Trajectory:
    """A method's shares of the loss; of a method with stages, the weights that its proxy found."""
    if len(method.runs[0].stages) > 1:
        name = method.runs[0].stages[-2][0]
        histories = [MixtureHistory.read(run.stages[-2][1]) for run in method.runs]
        curves, meaning = _shares(histories, "weights"), f"weights that stage {name} found"
    else:
        curves, meaning = share_curves(method, "effective"), "share of the loss"
    steps = list(next(iter(curves.values())))
    rows = [[curve[step].mean for curve in curves.values()] for step in steps]
    return Trajectory(np.array(steps, np.int64), np.array(rows).reshape(len(steps), -1), meaning)


def over_seeds(values: Sequence[Mapping[int, float]]) -> Curve:
    """Means at the points that all seeds have; empty without any."""
    common = sorted(set(values[0]).intersection(*values[1:])) if values else []
    curve = {}
    for point in common:
        at = estimate([of_seed[point] for of_seed in values])
        curve[point] = CurvePoint(at.mean, at.bounds)
    return curve


def _losses(run: ComparedRun, score: Score, by: Literal["step", "tokens"]) -> dict[int, float]:
    points = run.history.validations
    return {getattr(point, by): SCORES[score]([*point.losses.values()]) for point in points}


def _shares(
    histories: Sequence[MixtureHistory], kind: Literal["weights", "effective"]
) -> dict[str, Curve]:
    by_domain = [
        {
            domain: {
                step: float(row[index])
                for step, row in zip(history.steps, getattr(history, kind), strict=True)
            }
            for index, domain in enumerate(history.domains)
        }
        for history in histories
    ]
    return {
        domain: over_seeds([seed[domain] for seed in by_domain]) for domain in histories[0].domains
    }


def _exponential(point: CurvePoint) -> CurvePoint:
    """``exp`` of mean and bounds, infinite where that overflows."""
    with np.errstate(over="ignore"):
        low, high = (None, None) if point.bounds is None else map(float, np.exp(point.bounds))
        bounds = None if low is None or high is None else (low, high)
        return CurvePoint(float(np.exp(point.mean)), bounds)
