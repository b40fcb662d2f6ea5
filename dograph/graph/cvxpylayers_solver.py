"""Solves the same program by cvxpylayers: the reference."""

from __future__ import annotations

import functools
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpylayers.torch import CvxpyLayer
from scipy.optimize import nnls
from torch import Tensor

from dograph.graph.active_set import ActiveSet, polish
from dograph.graph.problem import TOLERANCE, Array, SimplexProgram, normalise

# At m = 11 Clarabel takes 0.6 ms where SCS takes 0.9 ms for 1e-9 (they are even at m = 64).
SOLVER: dict[str, Any] = {
    "solve_method": "Clarabel",
    "tol_gap_abs": 1e-12,
    "tol_gap_rel": 1e-12,
    "tol_feas": 1e-12,
}
DENSE_DERIVATIVE = 24  # largest m with limits whose derivative is found by a dense factorisation


def minimise_by_cvxpylayers(
    quadratic: Tensor, linear: Tensor, lower: Tensor, upper: Tensor, rows: Tensor, limits: Tensor
) -> Tensor:
    """Like ``minimise``, with (0, m) rows and upper bounds of 1 for none."""
    given = (quadratic, linear, lower, upper, rows, limits)
    program, size = normalise(tensor.detach().numpy() for tensor in given)
    symmetric = (quadratic + quadratic.T) / (2 * size)
    lifted = symmetric + (torch.from_numpy(program.quadratic) - symmetric).detach()
    # By Cholesky, which is differentiable also for equal eigenvalues.
    inputs = [torch.linalg.cholesky(lifted).T, (linear - linear.min().detach()) / size, lower]
    bounded, count = bool((program.upper < 1).any()), 0
    if bounded:
        inputs.append(upper)
    if len(rows):
        # Rows of 0 up to a power of two, so that problems of about one size share a layer.
        count = 1 << (len(rows) - 1).bit_length()
        more = count - len(rows)
        inputs.append(torch.cat([rows, rows.new_zeros(more, len(linear))]))
        inputs.append(torch.cat([limits, limits.new_ones(more)]))
    options = dict(SOLVER)
    if any(tensor.requires_grad for tensor in inputs) and torch.is_grad_enabled():
        small = len(linear) <= DENSE_DERIVATIVE or not (count or bounded)
        options["mode"] = "dense" if small else "lsqr"
    layer = cone_layer(len(linear), count, bounded)
    (answer,) = layer(*inputs, solver_args=options)
    weights = _polished(program, answer.detach().numpy())
    return answer + (torch.from_numpy(weights) - answer).detach()


def _polished(program: SimplexProgram, answer: Array) -> Array:
    """The verified minimum near a cone solver's answer, which is accurate to 1e-6."""
    if not program.violation(answer) <= TOLERANCE:
        raise ArithmeticError("the solver's answer is not finite or breaks a constraint")
    difference = program.rows @ answer
    binding = np.abs(difference) > program.limits - TOLERANCE
    side = np.where(binding, np.where(difference < 0, -1.0, 1.0), 0.0)
    at_lower = answer - program.lower < TOLERANCE
    at_upper = (program.upper - answer < TOLERANCE) & ~at_lower
    active = ActiveSet(program, at_lower, at_upper, side)
    answer, _ = polish(active, answer)
    return program.verified(answer, _duals(active, answer))


def _duals(active: ActiveSet, weights: Array) -> Array:
    """(r,) duals of the rows that explain the gradient best; cvxpylayers gives none."""
    program, side = active.program, active.side
    duals = np.zeros(len(side))
    binding = side.nonzero()[0]
    if len(binding):
        one, each = np.ones((len(weights), 1)), np.eye(len(weights))
        others = [one, -one, -each[:, active.at_lower], each[:, active.at_upper]]
        both = program.limits[binding] == 0
        sides = (side[binding, None] * program.rows[binding]).T
        parts, _ = nnls(np.hstack([sides, -sides[:, both], *others]), -program.gradient(weights))
        duals[binding] = parts[: len(binding)]
        duals[binding[both]] -= parts[len(binding) :][: both.sum()]
        duals *= side
    return duals


@functools.cache
def cone_layer(size: int, rows: int, bounded: bool = False) -> CvxpyLayer:
    """The cone program over ``size`` weights, canonicalised once a process and re-used.

    Kept outside the modules that use it, so that no state_dict, copy or pickle sees it. A layer
    from F (m, m) with ``FᵀF = H``, c (m,), lower (m,), where it is ``bounded`` upper (m,), and with
    ``rows`` r > 0, A (r, m) and limits (r,) to w.
    """
    weights = cp.Variable(size)
    root, linear, lower = cp.Parameter((size, size)), cp.Parameter(size), cp.Parameter(size)
    objective = cp.sum_squares(root @ weights) + linear @ weights
    parameters = [root, linear, lower]
    constraints = [weights >= lower, cp.sum(weights) == 1]
    if bounded:
        upper = cp.Parameter(size)
        constraints.append(weights <= upper)
        parameters.append(upper)
    if rows:
        differences, limits = cp.Parameter((rows, size)), cp.Parameter(rows)
        constraints += [differences @ weights <= limits, differences @ weights >= -limits]
        parameters += [differences, limits]
    return CvxpyLayer(cp.Problem(cp.Minimize(objective), constraints), parameters, [weights])
