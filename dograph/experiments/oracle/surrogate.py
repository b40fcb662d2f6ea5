"""A Gaussian process from mixtures to the target's loss: predictions, error, next mixtures."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from dograph.experiments.oracle.design import (
    CANDIDATES,
    Mixtures,
    candidates,
    rounded,
    search_around,
)

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

Floats = NDArray[np.float64]


class Surrogate:
    """The target's loss as a Gaussian process of √weights, with noise (Rasmussen & Williams 2006).

    A Matérn kernel, ν = 5/2, of the square roots of the weights, in which a domain's first
    percent counts more than its last, plus white noise; hyper-parameters by marginal likelihood.
    Its length scale is one for all domains, or one each; the lower leave-one-out error decides.

    Args:
        mixtures: (n, S) weights that were tried, n ≥ 2.
        losses: (n,) the target's loss of each, in nats.
        seed: of the fit's restarts and of the candidates.
    """

    def __init__(self, mixtures: Mixtures, losses: Floats, seed: int = 0) -> None:
        self.mixtures, self.losses, self.seed = mixtures, losses, seed
        self._mean, self._scale = float(losses.mean()), float(losses.std()) or 1.0
        count, domains = mixtures.shape
        scales: list[float | Floats] = [1.0]
        if count >= 2 * domains:
            scales.append(np.ones(domains))
        fits = [self._fit(scale) for scale in scales]
        self._process = min(fits, key=_error)

    @property
    def loo_error(self) -> float:
        """Root mean square error in nats of predicting each loss from all others."""
        return _error(self._process) * self._scale

    @property
    def noise(self) -> float:
        """Standard deviation of the losses' noise, in nats."""
        return float(np.sqrt(self._process.kernel_.k2.noise_level)) * self._scale

    @property
    def kernel(self) -> str:
        """The fitted kernel, on losses of mean 0 and variance 1."""
        return str(self._process.kernel_)

    def predict(self, mixtures: Mixtures) -> tuple[Floats, Floats]:
        """(m,) expected losses and (m,) their standard deviations without noise, in nats."""
        mean, deviation = _predict(self._process, mixtures)
        return self._mean + self._scale * mean, self._scale * deviation

    def optimum(self) -> Floats:
        """(S,) the mixture of the lowest expected loss, by repeated search around the best one."""
        start = self.mixtures[self.predict(self.mixtures)[0].argmin()]
        best = search_around(start, lambda mixtures: self.predict(mixtures)[0], self.seed)
        return cast(Floats, rounded(best[None])[0])

    def predict_from(self, mixtures: Mixtures, losses: Floats, sought: Mixtures) -> Floats:
        """(m,) losses expected from other mixtures than the fit's, with its hyper-parameters."""
        scaled = (losses - self._mean) / self._scale
        process = _with_points(self._process, mixtures, scaled)
        return self._mean + self._scale * _predict(process, sought)[0]

    def propose(self, count: int) -> Mixtures:
        """(count, S) mixtures of the largest expected improvement, to be tried at once.

        One after another: each is taken to have given its expected loss before the next is
        chosen (the "kriging believer", Ginsbourger et al. 2010).
        """
        draw, process = np.random.default_rng(self.seed + 1), self._process
        mixtures, losses = self.mixtures, (self.losses - self._mean) / self._scale
        good = np.stack([self.optimum(), mixtures[losses.argmin()]])
        for _ in range(count):
            sought = rounded(candidates(good, CANDIDATES, draw))
            sought = sought[~_among(sought, mixtures)]
            lowest = float(_predict(process, mixtures)[0].min())
            mean, deviation = _predict(process, sought)
            chosen = expected_improvement(mean, deviation, lowest).argmax()
            mixtures = np.concatenate([mixtures, sought[chosen, None]])
            losses = np.append(losses, mean[chosen])
            process = _with_points(self._process, mixtures, losses)
        return mixtures[len(self.mixtures) :]

    def _fit(self, length_scale: float | Floats) -> GaussianProcessRegressor:
        # Here, since plans and runs need no process, and scikit-learn takes long to import.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        smooth = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(length_scale, (0.1, 30.0), nu=2.5)
        kernel = smooth + WhiteKernel(1e-3, (1e-6, 0.5))
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=4, random_state=self.seed)
        with warnings.catch_warnings():
            # A parameter at its bound is no mistake: a domain without effect has a long scale.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return process.fit(np.sqrt(self.mixtures), (self.losses - self._mean) / self._scale)


def expected_improvement(mean: Floats, deviation: Floats, lowest: float) -> Floats:
    """(m,) how far below ``lowest`` a loss is expected to be (Jones et al. 1998)."""
    spread = np.maximum(deviation, 1e-12)
    z = (lowest - mean) / spread
    return cast(Floats, spread * (z * norm.cdf(z) + norm.pdf(z)))


def _with_points(
    process: GaussianProcessRegressor, mixtures: Mixtures, losses: Floats
) -> GaussianProcessRegressor:
    """A process of other points with the same hyper-parameters."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    again = GaussianProcessRegressor(process.kernel_, optimizer=None)
    return again.fit(np.sqrt(mixtures), losses)


def _predict(process: GaussianProcessRegressor, mixtures: Mixtures) -> tuple[Floats, Floats]:
    """(m,) means and (m,) standard deviations without noise."""
    mean, deviation = process.predict(np.sqrt(mixtures), return_std=True)
    return mean, np.sqrt(np.maximum(deviation**2 - process.kernel_.k2.noise_level, 0))


def _error(process: GaussianProcessRegressor) -> float:
    """Leave-one-out error, hyper-parameters kept (Rasmussen & Williams 2006, equation 5.12)."""
    points = process.X_train_
    inverse = np.linalg.inv(process.kernel_(points) + process.alpha * np.eye(len(points)))
    errors = inverse @ process.y_train_ / np.diag(inverse)
    return float(np.sqrt(np.mean(errors**2)))


def _among(sought: Mixtures, tried: Mixtures) -> NDArray[np.bool_]:
    """(m,) whether a mixture was tried already."""
    known = {tuple(row) for row in tried.tolist()}
    return np.array([tuple(row) in known for row in sought.tolist()])
