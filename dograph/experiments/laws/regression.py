"""Laws without a closed form: RegMix's trees, its linear regression, the oracle's process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from dograph.experiments.laws.law import FittedLaw, Law
from dograph.experiments.laws.table import Floats, Points
from dograph.experiments.oracle.surrogate import Surrogate

ROUNDS, RATE, LEAVES, LEAF = 1000, 0.01, 31, 20
"""RegMix's trees: rounds, learning rate; LightGBM's defaults: leaves, mixtures of a leaf."""
LEAVES_AT_LEAST = 10
"""With few mixtures a leaf takes a tenth of them (ours): a tree could not split otherwise."""


@dataclass(frozen=True)
class FittedRegressor(FittedLaw):
    """A fitted regressor of scikit-learn's interface."""

    regressor: Any
    text: str

    def predict(self, points: Points) -> Floats:
        """(n,) expected losses."""
        return np.asarray(self.regressor.predict(points.mixtures), dtype=np.float64)

    def as_json(self) -> dict[str, Any]:
        """Which regressor; trees are not written out."""
        return {"regressor": self.text}


class RegMix(Law):
    """Gradient-boosted trees of the weights (Liu et al. 2024, arXiv 2407.01492).

    By LightGBM, as published, where it is installed; else by scikit-learn's trees of the same
    settings, which agree with it to 0.001 in rank correlation on RegMix's own tables. RegMix stops
    the boosting early on the mixtures that it then reports errors on; here all rounds are done, so
    that errors are of mixtures that decided nothing.
    """

    name = "regmix"

    def __init__(self) -> None:
        self.lightgbm = _version("lightgbm")
        if self.lightgbm is None:
            self.note = "LightGBM is not installed: scikit-learn's trees of the same settings"

    def parameters(self, domains: int, several_steps: bool) -> int:
        """Trees need no number of mixtures, but two leaves of them."""
        return 2

    def fit(
        self, points: Points, losses: Floats, own: int | None, whole: FittedLaw | None = None
    ) -> FittedRegressor:
        """Fit all rounds."""
        leaf = min(LEAF, max(len(losses) // LEAVES_AT_LEAST, 1))
        if self.lightgbm is None:
            from sklearn.ensemble import HistGradientBoostingRegressor

            regressor: Any = HistGradientBoostingRegressor(
                learning_rate=RATE,
                max_iter=ROUNDS,
                max_leaf_nodes=LEAVES,
                min_samples_leaf=leaf,
                early_stopping=False,
                random_state=0,
            )
            text = f"HistGradientBoostingRegressor of scikit-learn {_version('scikit-learn')}"
        else:
            from lightgbm import LGBMRegressor

            regressor = LGBMRegressor(
                n_estimators=ROUNDS,
                learning_rate=RATE,
                num_leaves=LEAVES,
                min_child_samples=leaf,
                random_state=42,
                n_jobs=1,
                verbosity=-1,
            )
            text = f"LGBMRegressor of LightGBM {self.lightgbm}"
        return FittedRegressor(regressor.fit(points.mixtures, losses), text)


@dataclass(frozen=True)
class FittedLinear(FittedLaw):
    """``Σ_j t_j r_j``."""

    t: Floats

    def predict(self, points: Points) -> Floats:
        """(n,) expected losses."""
        return np.asarray(points.mixtures @ self.t)

    def as_json(self) -> dict[str, Any]:
        """The coefficients."""
        return {"t": self.t.tolist()}


class Linear(Law):
    """Linear regression, RegMix's other regressor; on the simplex it needs no constant.

    Its exact optimum is always a corner, so that the search is RegMix's simulation.
    """

    name = "linear"

    def parameters(self, domains: int, several_steps: bool) -> int:
        """One for each domain."""
        return domains

    def fit(
        self, points: Points, losses: Floats, own: int | None, whole: FittedLaw | None = None
    ) -> FittedLinear:
        """Least squares."""
        return FittedLinear(np.asarray(np.linalg.lstsq(points.mixtures, losses, rcond=None)[0]))


@dataclass(frozen=True)
class FittedProcess(FittedLaw):
    """A Gaussian process, of all rows or with the hyper-parameters of all on a part of them."""

    surrogate: Surrogate
    part: tuple[Floats, Floats] | None = None

    def predict(self, points: Points) -> Floats:
        """(n,) expected losses."""
        if self.part is None:
            return self.surrogate.predict(points.mixtures)[0]
        return self.surrogate.predict_from(*self.part, points.mixtures)

    def as_json(self) -> dict[str, Any]:
        """Kernel and noise."""
        return {"kernel": self.surrogate.kernel, "noise": self.surrogate.noise}


class GaussianProcess(Law):
    """The oracle's surrogate; in cross-validation its hyper-parameters are those of all rows."""

    name = "gp"

    def parameters(self, domains: int, several_steps: bool) -> int:
        """Any two mixtures will do."""
        return 2

    def fit(
        self, points: Points, losses: Floats, own: int | None, whole: FittedLaw | None = None
    ) -> FittedProcess:
        """Fit hyper-parameters to all rows; to a part of them, only the process."""
        if isinstance(whole, FittedProcess):
            return FittedProcess(whole.surrogate, (points.mixtures, losses))
        return FittedProcess(Surrogate(points.mixtures, losses))


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
