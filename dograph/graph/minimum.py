"""The minimum of a quadratic (or entropic) programme on the simplex, solved, polished, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dograph.graph.refinement import Programme, refine

RIDGE = 1e-6
NO_EDGE = 2.0  # two weights differ by at most 1, so that this bound never binds
TOLERANCE = 1e-5
LARGEST_GAP = 1e-4  # relative to the objective's largest coefficient
LARGEST_LIFT = 1e-3  # relative to the largest entry: far above float32's rounding
# At m = 11 Clarabel takes 0.6 ms where SCS takes 0.9 ms for 1e-9 (they are even at m = 64).
SOLVER: dict[str, Any] = {
    "solve_method": "Clarabel",
    "tol_gap_abs": 1e-12,
    "tol_gap_rel": 1e-12,
    "tol_feas": 1e-12,
}
DENSE_DERIVATIVE = 24  # largest m with limits whose derivative is found by a dense factorisation

Layer = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Solution:
    """Weights, and how they were come by.

    Attributes:
        weights: (m,) float64 on the simplex; with a gradient where an input has one.
        status: ``optimal``, or ``failed: `` and why.
        seconds: wall-clock of the solve.
    """

    weights: Tensor
    status: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the weights solve the problem, rather than being the fallback."""
        return self.status == "optimal"


def exact(value: float | Tensor) -> Tensor:
    """A number or tensor as float64 on the CPU, its graph kept."""
    return torch.as_tensor(value).to("cpu", torch.float64)


def minimum(
    layer: Layer,
    quadratic: Tensor,
    linear: Tensor,
    lowest: Tensor,
    more: tuple[Tensor, ...] = (),
    *,
    rows: Tensor | None = None,
    limits: Tensor | None = None,
    inside: Tensor | None = None,
    entropy: Tensor | None = None,
) -> Tensor:
    """Minimises ``wᵀHw + c·w (+ μ Σ w ln w)`` over the simplex above ``lowest``, |A w| ≤ limits.

    Args:
        layer: a cvxpylayers layer from F with ``FᵀF = H``, c, (μ,) and ``more``, all scaled.
        quadratic: (m, m) H, positive semi-definite up to rounding.
        linear: (m,) c.
        lowest: (m,) ≥ 0, of sum < 1.
        more: what else the layer takes.
        rows: (r, m) A, for the checks.
        limits: (r,) ≥ 0, for the checks.
        inside: (m,) weights that keep the limits.
        entropy: μ > 0. None: no such term.

    Returns:
        (m,) float64 on the simplex, differentiable in what the layer takes.

    Raises:
        ArithmeticError: if an input is not finite, or the layer's answer is not the minimum.
    """
    given = [quadratic, linear, *more, *([] if entropy is None else [entropy])]
    if not all(torch.isfinite(tensor).all() for tensor in given):
        raise ArithmeticError("a kernel, spread, count or coefficient is not finite")
    quadratic = (quadratic + quadratic.T) / 2
    # Neither a common factor nor a common shift of c moves the minimum: solve near 1.
    linear = linear - linear.min().detach()
    size = torch.maximum(quadratic.abs().max(), linear.max()).detach()
    if entropy is not None:
        size = torch.maximum(size, entropy.detach())
        entropy = entropy / size
    quadratic, linear = quadratic / size, linear / size
    root = root_of(quadratic)
    inputs = [root, linear, *([] if entropy is None else [entropy]), *more]
    options = dict(SOLVER)
    if any(tensor.requires_grad for tensor in inputs) and torch.is_grad_enabled():
        dense = limits is None or len(linear) <= DENSE_DERIVATIVE
        options["mode"] = "dense" if dense else "lsqr"
    (found,) = layer(*inputs, solver_args=options)
    programme = Programme(
        root.detach(),
        linear.detach(),
        lowest.detach(),
        None if rows is None else rows.detach(),
        None if limits is None else limits.detach(),
        inside,
        0.0 if entropy is None else float(entropy.detach()),
    )
    # The layer does not report the solver's status: its answer has to speak for itself.
    if not programme.violation(found.detach()) <= TOLERANCE:
        raise ArithmeticError("the solver's answer is not finite or breaks a constraint")
    polished = found + (refine(programme, found.detach()) - found).detach()
    free = (polished - lowest).clamp(min=0)
    weights = lowest + (1 - lowest.sum()) * free / free.sum()
    if not programme.gap(weights.detach()) <= LARGEST_GAP:
        raise ArithmeticError("the solver's answer is not optimal")
    return weights


def root_of(quadratic: Tensor) -> Tensor:
    """(m, m) upper F with ``FᵀF = H``, by Cholesky: differentiable also for equal eigenvalues.

    Raises:
        ArithmeticError: if H is indefinite by more than float32's rounding.
    """
    factor, info = torch.linalg.cholesky_ex(quadratic)
    if info:
        # A kernel computed in float32 can be indefinite by its rounding: lift it by that much.
        lift = RIDGE - torch.linalg.eigvalsh(quadratic.detach()).min()
        if lift > LARGEST_LIFT:
            raise ArithmeticError("K is not positive semi-definite")
        identity = torch.eye(len(quadratic), dtype=quadratic.dtype)
        factor = torch.linalg.cholesky(quadratic + lift * identity)
    return factor.T
