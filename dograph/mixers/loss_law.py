"""Power laws of losses, ``L(n) = e^ε + e^a / n^α``, as ADO fits them (arXiv 2410.11820)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
HUBER = 1e-3
"""Errors of the loss's logarithm beyond which they count linearly."""
LEAST, MOST = np.array([-np.inf, 0.5, 0.001]), np.array([6.5, np.inf, 0.8])
"""(3,) bounds of a, ε and α; what lies beyond is added to the misfit."""
STARTS = np.array(
    list(itertools.product(np.arange(-2, 6, 1), np.arange(-2, 2, 0.5), np.arange(0, 0.8, 0.1))),
    dtype=np.float64,
)
"""(512, 3) values of a, ε and α to start from."""
BEST_STARTS = 8
"""The starts that the solver sets out from, those of the least misfit."""


def misfit(law: Numbers, log_n: Numbers, log_loss: Numbers) -> tuple[Numbers, Numbers]:
    """How badly laws fit P points: Huber's loss of ``ln L``, summed, and what is beyond bounds.

    Args:
        law: (…, 3) a, ε and α.
        log_n: (P,) logarithm of the sequences trained on.
        log_loss: (P,) logarithm of the loss in nats.

    Returns:
        (…,) values and (…, 3) gradients.
    """
    constant, irreducible, exponent = (law[..., index, None] for index in range(3))
    falling = constant - exponent * log_n
    predicted = np.logaddexp(falling, irreducible)
    share = np.exp(falling - predicted)
    error = predicted - log_loss
    pull = np.clip(error, -HUBER, HUBER)
    value = (pull * (error - pull / 2)).sum(axis=-1)
    partials = share, 1 - share, -share * log_n
    gradient = np.stack([(pull * partial).sum(axis=-1) for partial in partials], axis=-1)
    above, below = np.maximum(law - MOST, 0), np.maximum(LEAST - law, 0)
    return value + (above + below).sum(axis=-1), gradient + np.sign(above) - np.sign(below)


def fit_law(n: Numbers, loss: Numbers) -> Numbers:
    """The law of the least misfit that L-BFGS finds from several starts; the same at every call.

    Args:
        n: (P,) sequences trained on, > 0.
        loss: (P,) nats.

    Returns:
        (3,) a, ε and α; NaN where the losses have no finite misfit.

    >>> n = np.arange(100.0, 5000.0, 100.0)
    >>> [round(float(each), 3) for each in fit_law(n, np.exp(1) + np.exp(3) / n**0.5)]
    [3.0, 1.0, 0.5]
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # a smoothed loss may be below 0
        points = np.log(n), np.log(loss)
    if not np.isfinite(points).all():
        return np.full(3, np.nan)
    starts = np.unique(np.clip(STARTS, LEAST, MOST), axis=0)
    order = np.argsort(misfit(starts, *points)[0], kind="stable")[:BEST_STARTS]
    ends = [_descent(starts[index], LEAST, MOST, points) for index in order]
    least, most, best = LEAST, MOST, min(ends, key=lambda each: float(each.fun))
    for _ in range(3):  # a bound that pushes by more than 1 is given up: that is what beyond costs
        above = (best.x >= MOST) & (-best.jac > 1) & (most == MOST)
        below = (best.x <= LEAST) & (best.jac > 1) & (least == LEAST)
        if not (above | below).any():
            break
        least = np.where(above, MOST, np.where(below, -np.inf, least))
        most = np.where(below, LEAST, np.where(above, np.inf, most))
        best = _descent(best.x, least, most, points)
    return np.asarray(best.x, dtype=np.float64)


def _descent(start: Numbers, least: Numbers, most: Numbers, points: tuple[Numbers, Numbers]) -> Any:
    """The end of L-BFGS between bounds, where the misfit is smooth."""
    from scipy.optimize import minimize

    bounds = list(zip(least, most, strict=True))
    options = {"maxiter": 200, "gtol": 1e-5, "ftol": 1e-13}
    return minimize(misfit, start, points, "L-BFGS-B", jac=True, bounds=bounds, options=options)


def smoothed(losses: Numbers, window: int) -> Numbers:
    """(T, S) losses of T steps after a Savitzky–Golay filter of degree 3 over ``window`` steps."""
    from scipy.signal import savgol_filter

    return np.asarray(savgol_filter(losses, window, 3, axis=0), dtype=np.float64)
