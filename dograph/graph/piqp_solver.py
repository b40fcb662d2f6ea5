"""Solves the quadratic program by PIQP, an interior-point solver (Schwan et al. 2023).

A cone solver needs a cone for the quadratic form, sparse copies and a canonical form; this dense
solver needs none of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import piqp
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dograph.graph.active_set import ActiveSet, polish
from dograph.graph.problem import Array, SimplexProgram, normalise

ACCURACY = 1e-12


def solve(program: SimplexProgram) -> tuple[Array, Array, ActiveSet]:
    """Solves from scratch, so that the answer never depends on what was solved before.

    Returns:
        (m,) weights, exact where the solver's answer shows which constraints bind; (r,) duals of
        the rows; and the active set. Not the minimum where there is none: check the gap.
    """
    solver = piqp.DenseSolver()
    settings = solver.settings
    settings.eps_abs = settings.eps_duality_gap_abs = ACCURACY
    settings.eps_rel = settings.eps_duality_gap_rel = 0.0
    m, limits = len(program.linear), program.limits
    limited, bounded = bool(len(limits)), program.upper < 1
    solver.setup(
        np.asfortranarray(2 * program.quadratic),
        program.linear,
        np.ones((1, m), order="F"),
        np.ones(1),
        np.asfortranarray(program.rows) if limited else None,
        -limits if limited else None,
        limits if limited else None,
        program.lower,
        np.where(bounded, program.upper, np.inf) if bounded.any() else None,
    )
    solver.solve()
    result = solver.result
    answer = np.array(result.x)
    # Complementary slackness: of slack and multiplier, the smaller one is the 0.
    at_lower = answer - program.lower < result.z_bl
    at_upper = bounded & (program.upper - answer < result.z_bu) & ~at_lower
    duals = np.array(result.z_u - result.z_l) if limited else limits
    slack = limits - np.abs(program.rows @ answer) if limited else limits
    side = np.where(slack < np.abs(duals), np.sign(duals), 0.0)
    duals = duals * np.abs(side)  # elsewhere they are rounding, and would only widen the gap
    weights, active = polish(ActiveSet(program, at_lower, at_upper, side), answer)
    return weights, duals, active


class QuadraticMinimum(torch.autograd.Function):
    """The verified minimum of float64 H, c, bounds, A, limits on the CPU; differentiable once."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        """Solves."""
        program, ctx.size = normalise(tensor.detach().numpy() for tensor in inputs)
        weights, duals, ctx.active = solve(program)
        return torch.from_numpy(program.verified(weights, duals))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiates by the implicit function theorem on the binding constraints."""
        gradients = ctx.active.gradients(upstream.numpy())
        factors = (1 / ctx.size, 1 / ctx.size, 1.0, 1.0, 1.0, 1.0)
        return tuple(
            torch.from_numpy(gradient * factor) if needed else None
            for gradient, factor, needed in zip(
                gradients, factors, ctx.needs_input_grad, strict=True
            )
        )
