"""The quadratic programme by PIQP, an interior-point solver (Schwan et al. 2023).

A cone solver needs a cone for the quadratic form, sparse copies and a canonical form; none of that
is in the way here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import piqp
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dograph.graph.programme import Array, Programme, normalised
from dograph.graph.refinement import Face, refine

ACCURACY = 1e-12


def solve(programme: Programme) -> tuple[Array, Array, Face]:
    """Solves from scratch, so that the answer never depends on what was solved before.

    Args:
        programme: ``normalised``, without an entropy.

    Returns:
        (m,) weights, exact where the solver's answer shows what binds; (r,) multipliers of the
        rows; and the face of what binds. Not the minimum where there is none: check the gap.
    """
    solver = piqp.DenseSolver()
    settings = solver.settings
    settings.eps_abs = settings.eps_duality_gap_abs = ACCURACY
    settings.eps_rel = settings.eps_duality_gap_rel = 0.0
    m, limits = len(programme.linear), programme.limits
    limited = bool(len(limits))
    solver.setup(
        np.asfortranarray(2 * programme.quadratic),
        programme.linear,
        np.ones((1, m), order="F"),
        np.ones(1),
        np.asfortranarray(programme.rows) if limited else None,
        -limits if limited else None,
        limits if limited else None,
        programme.lowest,
        None,
    )
    solver.solve()
    result = solver.result
    found = np.array(result.x)
    # Slack times multiplier is next to 0 for each constraint: the smaller of the two is the 0.
    low = found - programme.lowest < result.z_bl
    pressure = np.array(result.z_u - result.z_l) if limited else limits
    slack = limits - np.abs(programme.rows @ found) if limited else limits
    side = np.where(slack < np.abs(pressure), np.sign(pressure), 0.0)
    pressure = pressure * np.abs(side)  # elsewhere it is rounding, and would only widen the gap
    weights, face = refine(Face(programme, low, side), found)
    return weights, pressure, face


class QuadraticMinimum(torch.autograd.Function):
    """The checked minimum as a function that can be differentiated once.

    Takes H (m, m), c (m,), lowest (m,), A (r, m) and limits (r,), all float64 on the CPU; gives
    (m,) weights. Raises ArithmeticError where there is no minimum.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        """Solves."""
        programme, ctx.size = normalised(tensor.detach().numpy() for tensor in inputs)
        found, pressure, ctx.face = solve(programme)
        return torch.from_numpy(programme.checked(found, pressure))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives by the implicit function theorem on the constraints that bind."""
        slopes = ctx.face.slopes(upstream.numpy())
        factors = (1 / ctx.size, 1 / ctx.size, 1.0, 1.0, 1.0)
        return tuple(
            torch.from_numpy(slope * factor) if needed else None
            for slope, factor, needed in zip(slopes, factors, ctx.needs_input_grad, strict=True)
        )
