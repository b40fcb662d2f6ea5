"""A method's curves over its seeds: points, means and bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dograph.comparison.comparison import Method
from dograph.comparison.runs import ComparedRun
from dograph.comparison.statistics import estimate
from dograph.report.history import MixtureHistory

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Means over seeds at the points that all seeds have.

    Attributes:
        tokens: (t,) trained on.
        mean: (t,).
        half: (t,) half of the 95 % interval; zeros for one seed.
    """

    tokens: Floats
    mean: Floats
    half: Floats


def loss_curve(method: Method, worst: bool = False) -> Curve:
    """Validation loss over a method's seeds: mean over domains, or the worst domain's."""
    return _over_seeds([_points(run, worst) for run in method.runs])


def difference_curve(method: Method, baseline: Method, worst: bool = False) -> Curve:
    """Validation loss less the baseline's with the same seed; empty without common points."""
    base = {run.seed: _points(run, worst) for run in baseline.runs}
    differences = []
    for run in method.runs:
        other = base.get(run.seed, {})
        own = _points(run, worst)
        differences.append({key: own[key] - other[key] for key in own if key in other})
    return _over_seeds([points for points in differences if points])


def _points(run: ComparedRun, worst: bool) -> dict[int, float]:
    """Loss by tokens."""
    combine = max if worst else lambda values: sum(values) / len(values)
    return {
        point.tokens: float(combine(list(point.losses.values())))
        for point in run.history.validations
    }


def _over_seeds(seeds: Sequence[dict[int, float]]) -> Curve:
    common = sorted(set.intersection(*(set(points) for points in seeds))) if seeds else []
    estimates = [estimate([points[tokens] for points in seeds]) for tokens in common]
    return Curve(
        np.array(common, float),
        np.array([point.mean for point in estimates]),
        np.array([point.half or 0.0 for point in estimates]),
    )


@dataclass(frozen=True)
class Trajectory:
    """How a mixture moved, in the mean over seeds.

    Attributes:
        steps: (t,) optimiser steps.
        shares: (t, S).
        meaning: of the shares.
    """

    steps: npt.NDArray[np.int64]
    shares: Floats
    meaning: str


def trajectory(method: Method) -> Trajectory:
    """A method's shares of the loss; of a method with stages, the weights that its proxy found."""
    histories, meaning = [], "share of the loss"
    for run in method.runs:
        if len(run.stages) > 1:
            name, folder = run.stages[-2]
            history, meaning = MixtureHistory.read(folder), f"weights that stage {name} found"
            histories.append((history.steps, history.weights))
        else:
            histories.append((run.history.steps, run.history.effective))
    shortest = min(len(steps) for steps, _ in histories)
    shares = np.mean([np.array(rows[:shortest]) for _, rows in histories], axis=0)
    return Trajectory(np.array(histories[0][0][:shortest]), shares, meaning)
