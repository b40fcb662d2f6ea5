"""The same programme by cvxpylayers: the reference, and the solver where there is an entropy."""

from __future__ import annotations

import functools
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpylayers.torch import CvxpyLayer
from scipy.optimize import nnls
from torch import Tensor

from dograph.graph.programme import TOLERANCE, Array, Programme, normalised
from dograph.graph.refinement import Face, entropic_minimum, refine

# At m = 11 Clarabel takes 0.6 ms where SCS takes 0.9 ms for 1e-9 (they are even at m = 64).
SOLVER: dict[str, Any] = {
    "solve_method": "Clarabel",
    "tol_gap_abs": 1e-12,
    "tol_gap_rel": 1e-12,
    "tol_feas": 1e-12,
}
DENSE_DERIVATIVE = 24  # largest m with limits whose derivative is found by a dense factorisation


def layered_minimum(
    quadratic: Tensor,
    linear: Tensor,
    lowest: Tensor,
    rows: Tensor,
    limits: Tensor,
    entropy: Tensor | None,
) -> Tensor:
    """As ``minimum``, with (0, m) rows for none.

    Raises:
        ArithmeticError: as ``minimum``.
    """
    numbers = (tensor.detach().numpy() for tensor in (quadratic, linear, lowest, rows, limits))
    programme, size = normalised(numbers, 0.0 if entropy is None else float(entropy.detach()))
    symmetric = (quadratic + quadratic.T) / (2 * size)
    lifted = symmetric + (torch.from_numpy(programme.quadratic) - symmetric).detach()
    # By Cholesky, which is differentiable also for equal eigenvalues.
    inputs = [torch.linalg.cholesky(lifted).T, (linear - linear.min().detach()) / size, lowest]
    if entropy is not None:
        inputs.append(entropy / size)
    count = 0
    if len(rows):
        # Rows of 0 up to a power of two, so that problems of about one size share a layer.
        count = 1 << (len(rows) - 1).bit_length()
        more = count - len(rows)
        inputs.append(torch.cat([rows, rows.new_zeros(more, len(linear))]))
        inputs.append(torch.cat([limits, limits.new_ones(more)]))
    options = dict(SOLVER)
    if any(tensor.requires_grad for tensor in inputs) and torch.is_grad_enabled():
        options["mode"] = "dense" if not count or len(linear) <= DENSE_DERIVATIVE else "lsqr"
    layer = cone_layer(len(linear), count, entropy is not None)
    (found,) = layer(*inputs, solver_args=options)
    weights = _refined(programme, found.detach().numpy())
    return found + (torch.from_numpy(weights) - found).detach()


def _refined(programme: Programme, found: Array) -> Array:
    """The checked minimum near a cone solver's answer, which is known to 1e-6."""
    if not programme.violation(found) <= TOLERANCE:
        raise ArithmeticError("the solver's answer is not finite or breaks a constraint")
    difference = programme.rows @ found
    bound = np.abs(difference) > programme.limits - TOLERANCE
    side = np.where(bound, np.where(difference < 0, -1.0, 1.0), 0.0)
    low = found - programme.lowest < TOLERANCE
    if not programme.entropy:
        found, _ = refine(Face(programme, low, side), found)
    elif not len(programme.limits):
        found = entropic_minimum(programme, found)
    return programme.checked(found, _pressure(programme, found, low, side))


def _pressure(programme: Programme, weights: Array, low: np.ndarray, side: np.ndarray) -> Array:
    """(r,) multipliers of the rows that explain the slope best; cvxpylayers gives none."""
    pressure = np.zeros(len(side))
    bound = side.nonzero()[0]
    if len(bound):
        one = np.ones((len(weights), 1))
        forces = [one, -one, -np.eye(len(weights))[:, low]]
        both = programme.limits[bound] == 0
        sides = (side[bound, None] * programme.rows[bound]).T
        found, _ = nnls(np.hstack([sides, -sides[:, both], *forces]), -programme.slope(weights))
        pressure[bound] = found[: len(bound)]
        pressure[bound[both]] -= found[len(bound) :][: both.sum()]
        pressure *= side
    return pressure


@functools.cache
def cone_layer(size: int, rows: int, entropic: bool) -> CvxpyLayer:
    """The cone programme over ``size`` weights, canonicalised once a process and re-used.

    Kept outside the modules that use it, so that no state_dict, copy or pickle sees it.

    Args:
        size: m.
        rows: r of |A w| ≤ limits.
        entropic: whether μ Σ w ln w joins the objective.

    Returns:
        A layer from F (m, m) with ``FᵀF = H``, c (m,), lowest (m,), μ if entropic and, with rows,
        A (r, m) and limits (r,) to w.
    """
    weights = cp.Variable(size)
    root, linear, lowest = cp.Parameter((size, size)), cp.Parameter(size), cp.Parameter(size)
    objective = cp.sum_squares(root @ weights) + linear @ weights
    parameters = [root, linear, lowest]
    if entropic:
        entropy = cp.Parameter(nonneg=True)
        objective += entropy * cp.sum(-cp.entr(weights))
        parameters.append(entropy)
    constraints = [weights >= lowest, cp.sum(weights) == 1]
    if rows:
        differences, limits = cp.Parameter((rows, size)), cp.Parameter(rows)
        constraints += [differences @ weights <= limits, differences @ weights >= -limits]
        parameters += [differences, limits]
    return CvxpyLayer(cp.Problem(cp.Minimize(objective), constraints), parameters, [weights])
