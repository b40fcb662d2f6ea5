"""Minimises a program on the simplex by PIQP or cvxpylayers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dograph.graph.piqp_solver import QuadraticMinimum

NO_LIMIT = 2.0  # two weights differ by at most 1: a wider limit would only upset a solver's scale
Backend = Literal["piqp", "cvxpylayers"]


@dataclass(frozen=True)
class Solution:
    """Weights and the status of the solve that gave them.

    Attributes:
        weights: (m,) float64 on the simplex; with a gradient where an input has one.
        status: ``optimal``, or ``failed: `` and why.
        seconds: wall-clock time of the solve.
    """

    weights: Tensor
    status: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the weights solve the problem, rather than being the fallback."""
        return self.status == "optimal"


def solve_or_fall_back(solve: Callable[[], Tensor], fallback: Callable[[], Tensor]) -> Solution:
    """Solves; whatever goes wrong gives the fallback's weights, since no batch may end a run."""
    start = time.perf_counter()
    try:
        weights, status = solve(), "optimal"
    except Exception as error:
        weights, status = fallback(), f"failed: {error}"
    return Solution(weights, status, time.perf_counter() - start)


def as_float64(value: float | Tensor) -> Tensor:
    """A number or tensor as float64 on the CPU, its graph kept."""
    return torch.as_tensor(value).to("cpu", torch.float64)


def minimise(
    quadratic: Tensor,
    linear: Tensor,
    lower: Tensor,
    rows: Tensor | None = None,
    limits: Tensor | None = None,
    *,
    upper: Tensor | None = None,
    backend: Backend = "piqp",
) -> Tensor:
    """Minimises ``wᵀHw + c·w`` over the simplex, ``lower ≤ w ≤ upper``, ``|A w| ≤ limits``.

    Args:
        quadratic: (m, m) H, positive semi-definite up to rounding.
        linear: (m,) c.
        lower: (m,) ≥ 0 of sum < 1.
        rows: (r, m) A, with (r,) ``limits`` ≥ 0. None: no such constraints.
        limits: with rows.
        upper: (m,) ≥ ``lower`` of sum ≥ 1. None: 1.
        backend: ``piqp``, or ``cvxpylayers``, the reference: slower, and up to 1e-6 from the
            minimum where it is not told which constraints bind.

    Returns:
        (m,) float64 on the simplex, differentiable in everything, once. ArithmeticError if an
        input is not finite, or the solver's answer is not the minimum.
    """
    if rows is None or limits is None:
        rows, limits = linear.new_zeros(0, len(linear)), linear.new_zeros(0)
    if upper is None:
        upper = torch.ones_like(lower)
    if backend == "piqp":
        weights: Tensor = QuadraticMinimum.apply(quadratic, linear, lower, upper, rows, limits)
        return weights
    # Here, since few runs need it, and cvxpy takes 0.1 s or more to import.
    from dograph.graph.cvxpylayers_solver import minimise_by_cvxpylayers

    return minimise_by_cvxpylayers(quadratic, linear, lower, upper, rows, limits)
