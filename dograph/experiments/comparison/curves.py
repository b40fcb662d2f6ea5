"""A method's curves over its seeds, by optimiser step: means at the steps that all seeds have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dograph.experiments.comparison.methods import Method
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.comparison.statistics import estimate
from dograph.files.run_dir import HISTORY
from dograph.mixers.target import Target
from dograph.reports.history import MixtureHistory

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]
Score = Literal["target", "mean", "worst"]
Kind = Literal["weights", "effective"]
SCORES: dict[Score, Callable[[Target, Mapping[str, float]], Any]] = {
    "target": Target.loss,
    "mean": lambda _, losses: np.mean([*losses.values()]),
    "worst": lambda _, losses: np.max([*losses.values()]),
}
"""Scores of one validation's losses over domains; NaN if one that counts is NaN."""


@dataclass(frozen=True)
class Curve:
    """A score at the steps that all seeds have; NaN where a seed's is.

    Attributes:
        steps: (t,) optimiser steps.
        tokens: (t,) trained on by then, in the mean over seeds.
        mean: (t,).
        bounds: (t,) each, the ends of the 95 % interval; None for one seed.
    """

    steps: Steps
    tokens: Floats
    mean: Floats
    bounds: tuple[Floats, Floats] | None


@dataclass(frozen=True)
class Trajectory:
    """How a mixture moved: (t,) steps that all seeds have, (t, S) mean shares, what those are."""

    steps: Steps
    shares: Floats
    meaning: str


@dataclass(frozen=True)
class _Point:
    tokens: int
    value: float


def loss_curve(method: Method, score: Score = "target") -> Curve:
    """Validation loss; the worst domain is looked for anew in each validation of each seed."""
    return _over_seeds([_points(run, score) for run in method.runs])


def difference_curve(method: Method, baseline: Method, score: Score = "target") -> Curve:
    """Validation loss less the baseline's with the same seed after as many tokens.

    Seeds without such a point of the baseline are left out; the curve is empty without any.
    """
    base = {
        (run.seed, point.tokens): point.value
        for run in baseline.runs
        for point in _points(run, score).values()
    }
    differences = [
        {
            step: _Point(point.tokens, point.value - base[run.seed, point.tokens])
            for step, point in _points(run, score).items()
            if (run.seed, point.tokens) in base
        }
        for run in method.runs
    ]
    return _over_seeds([points for points in differences if points])


def score_curves(method: Method) -> dict[str, Curve]:
    """``target_loss``, ``mean_loss``, ``worst_loss`` in nats, and all as perplexity.

    A perplexity is ``exp`` of the loss curve and of its bounds, so that its interval holds
    possible values only.
    """
    losses = {f"{score}_loss": loss_curve(method, score) for score in SCORES}
    perplexities = {
        name.replace("loss", "perplexity"): _exponential(curve) for name, curve in losses.items()
    }
    return {**losses, **perplexities}


def share_trajectory(method: Method, kind: Kind, domains: Sequence[str]) -> Trajectory:
    """Weights in the sampler, or shares of the loss weight, over a method's last stage.

    Effective shares hold since the point before, whose step may differ between seeds.
    """
    meaning = "share of the loss" if kind == "effective" else "weights in the sampler"
    return _mean_shares([run.history for run in method.runs], kind, domains, meaning)


def trajectory(method: Method, domains: Sequence[str]) -> Trajectory:
    """A method's shares of the loss; of a method with stages, the weights that its proxy found.

    A swarm found them at once: then the shares are the last stage's.
    """
    stages = method.runs[0].stages
    if len(stages) == 1 or not (stages[-2][1] / HISTORY).is_file():
        return share_trajectory(method, "effective", domains)
    name = method.runs[0].stages[-2][0]
    histories = [MixtureHistory.read(run.stages[-2][1]) for run in method.runs]
    return _mean_shares(histories, "weights", domains, f"weights that stage {name} found")


def _points(run: ComparedRun, score: Score) -> dict[int, _Point]:
    """A run's validations by step."""
    return {
        point.step: _Point(point.tokens, float(SCORES[score](run.target, point.losses)))
        for point in run.history.validations
    }


def _common(seeds: Sequence[Mapping[int, Any]]) -> list[int]:
    """The steps that all seeds have, rising."""
    return sorted(set(seeds[0]).intersection(*seeds[1:])) if seeds else []


def _over_seeds(seeds: Sequence[Mapping[int, _Point]]) -> Curve:
    common = _common(seeds)
    with np.errstate(invalid="ignore"):  # of a loss that overflowed
        ends = [estimate([points[step].value for points in seeds]) for step in common]
    tokens = [np.mean([points[step].tokens for points in seeds]) for step in common]
    means = np.array([end.mean for end in ends], float)
    halves = np.array([end.half for end in ends], float)
    bounds = (means - halves, means + halves) if len(seeds) > 1 else None
    return Curve(np.array(common, int), np.array(tokens, float), means, bounds)


def _exponential(curve: Curve) -> Curve:
    """``exp`` of mean and bounds, infinite where that overflows."""
    with np.errstate(over="ignore"):
        bounds = curve.bounds and (np.exp(curve.bounds[0]), np.exp(curve.bounds[1]))
        return replace(curve, mean=np.exp(curve.mean), bounds=bounds)


def _mean_shares(
    histories: Sequence[MixtureHistory], kind: Kind, domains: Sequence[str], meaning: str
) -> Trajectory:
    rows = [dict(zip(history.steps, getattr(history, kind), strict=True)) for history in histories]
    columns = [[history.domains.index(name) for name in domains] for history in histories]
    common = _common(rows)
    seeds = list(zip(rows, columns, strict=True))
    shares = [
        np.mean([np.array(seed[at])[order] for seed, order in seeds], axis=0) for at in common
    ]
    table = np.array(shares, float).reshape(len(common), len(domains))
    return Trajectory(np.array(common, int), table, meaning)
