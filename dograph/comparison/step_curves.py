"""Curves over optimiser steps, as TensorBoard shows them: means over seeds with bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dograph.comparison.comparison import Method
from dograph.comparison.statistics import estimate

SCORES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda losses: sum(losses) / len(losses),
    "worst": max,
}
"""What is made of one validation's losses over domains."""


@dataclass(frozen=True)
class CurvePoint:
    """A curve at one step.

    Attributes:
        mean: over the seeds.
        bounds: of its 95 % interval; None for one seed.
    """

    mean: float
    bounds: tuple[float, float] | None


StepCurve = dict[int, CurvePoint]
"""Points by optimiser step, rising."""


def score_curves(method: Method) -> dict[str, StepCurve]:
    """``mean_loss``, ``worst_loss`` in nats and both as perplexity, at every validation.

    The worst domain is looked for anew in each validation of each seed. A perplexity is ``exp``
    of the loss curve and of its bounds, so that its interval holds possible values only.
    """
    losses = {
        f"{name}_loss": _over_seeds(
            [
                {point.step: score([*point.losses.values()]) for point in run.history.validations}
                for run in method.runs
            ]
        )
        for name, score in SCORES.items()
    }
    perplexities = {
        name.replace("loss", "perplexity"): {step: _exponential(at) for step, at in curve.items()}
        for name, curve in losses.items()
    }
    return {**losses, **perplexities}


def share_curves(method: Method, kind: Literal["weights", "effective"]) -> dict[str, StepCurve]:
    """Each domain's weight in the sampler, or its share of the loss weight, by domain.

    Of an experiment with stages, these are the last stage's.
    """
    histories = [run.history for run in method.runs]
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
        domain: _over_seeds([seed[domain] for seed in by_domain]) for domain in histories[0].domains
    }


def _over_seeds(values: Sequence[Mapping[int, float]]) -> StepCurve:
    """Means at the steps that all seeds have."""
    curve = {}
    for step in sorted(set(values[0]).intersection(*values[1:])):
        at = estimate([of_seed[step] for of_seed in values])
        curve[step] = CurvePoint(at.mean, at.bounds)
    return curve


def _exponential(point: CurvePoint) -> CurvePoint:
    """``exp`` of mean and bounds, infinite where that overflows."""
    with np.errstate(over="ignore"):
        low, high = (None, None) if point.bounds is None else map(float, np.exp(point.bounds))
        bounds = None if low is None or high is None else (low, high)
        return CurvePoint(float(np.exp(point.mean)), bounds)
