"""How well a law predicts mixtures that it was not fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from dograph.experiments.laws.law import FittedLaw, Law
from dograph.experiments.laws.table import Floats, MixtureTable, Places


@dataclass(frozen=True)
class LossErrors:
    """Out-of-fold errors of one loss, or of the target; NaN where no mixture tells.

    Attributes:
        error: root mean square, in nats.
        absolute: mean of the absolute errors, in nats.
        spread: standard deviation of the losses themselves: what always guessing the mean errs by.
        spearman: rank correlation of mixtures' expected and measured losses; NaN if undefined.
        noise: standard deviation between runs of one mixture; None without repeats.
    """

    error: float
    absolute: float
    spread: float
    spearman: float
    noise: float | None

    def as_json(self) -> dict[str, Any]:
        """All of it; null for what is undefined."""
        numbers = {
            "out_of_fold_error": self.error,
            "out_of_fold_absolute_error": self.absolute,
            "losses_standard_deviation": self.spread,
            "spearman": self.spearman,
        }
        known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
        return {**known, "noise": self.noise}


def fold_of_rows(groups: Places, folds: int, seed: int) -> Places:
    """(n,) fold of each row; repeats of one mixture are in one fold.

    Args:
        groups: (n,) number of each row's mixture.
        folds: at most one for each mixture.
        seed: of the assignment.
    """
    count = int(groups.max()) + 1
    order = np.random.default_rng(seed).permutation(count)
    by_group = np.empty(count, dtype=np.int64)
    by_group[order] = np.arange(count) % min(folds, count)
    return np.asarray(by_group[groups])


def out_of_fold(law: Law, table: MixtureTable, loss: int, whole: FittedLaw, fold: Places) -> Floats:
    """(n,) predictions of a loss, each by a fit that had none of its mixture's rows."""
    predicted = np.empty(len(table.losses))
    for number in np.unique(fold):
        left, kept = fold == number, fold != number
        fitted = law.fit_loss(table, loss, kept, whole)
        predicted[left] = fitted.predict(table.points.take(left))
    return predicted


def errors(
    table: MixtureTable, losses: Floats, predicted: Floats, counts: Any = None
) -> LossErrors:
    """Errors at the ends of training.

    Args:
        table: the mixtures.
        losses: (n,) measured.
        predicted: (n,) out of fold.
        counts: (n,) mask of rows that a law can predict; None for all.
    """
    rows = table.at_end if counts is None else table.at_end & counts
    if not rows.any():
        return LossErrors(math.nan, math.nan, math.nan, math.nan, table.noise(losses))
    groups, real, expected = table.groups[rows], losses[rows], predicted[rows]
    off = expected - real
    present, sizes = np.unique(groups, return_counts=True)
    means = [np.bincount(groups, each)[present] / sizes for each in (expected, real)]
    varied = all(np.ptp(each) > 0 for each in means)
    return LossErrors(
        error=float(np.sqrt(np.mean(off**2))),
        absolute=float(np.abs(off).mean()),
        spread=float(real.std()) if len(present) > 1 else math.nan,
        spearman=float(spearmanr(*means)[0]) if varied else math.nan,
        noise=table.noise(losses),
    )
