"""Learning a schedule's scalars by one-step look-ahead through the solver (ours)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver

RATE = 0.2
LARGEST_STEP = 0.5
FURTHEST = math.log(10.0)
ARGUMENTS = {"kappa": "kappa", "laplacian": "lam", "proximity": "mu"}
"""Names of the solver's arguments."""


class LookAhead:
    """The logarithms of κ, λ and μ, moved down the gradient of what a probe says of them.

    The weights that the problem of the *earlier* target would have given are judged by the new
    probe, which they have not seen, and by the descent lemma's bound with the recipe's κ_0:

        J = − ⟨b_probe, w⟩ + (κ_0/2) ‖R w‖²,    w = P α(ln κ, ln λ, ln μ)

    Logarithms move by at most 0.5 a time and stay within a factor of 10 of their start; a scalar
    of 0 stays 0.

    Args:
        start: the scalars by name.
        curvature: κ_0 ≥ 0.
        active: whether anything is learnt.
    """

    def __init__(self, start: Mapping[str, float], curvature: float, active: bool) -> None:
        self.start, self.curvature, self.active = dict(start), curvature, active
        self.reset()

    def reset(self) -> None:
        """Back to the start."""
        self.moved = dict.fromkeys(self.start, 0.0)

    def values(self) -> dict[str, float]:
        """The scalars now, by name."""
        return {name: value * math.exp(self.moved[name]) for name, value in self.start.items()}

    def scalars(self) -> dict[str, float]:
        """The same, as the solver calls them."""
        return {ARGUMENTS[name]: value for name, value in self.values().items()}

    def learn(
        self,
        solver: ScheduleSolver,
        earlier: ScheduleProblem,
        alignment: Tensor,
        fixed: Mapping[str, float],
    ) -> None:
        """One step down J's gradient; nothing where the solve fails.

        Args:
            solver: of the schedule; the solves count as its own.
            earlier: the problem with the earlier target.
            alignment: (K,) b of the new probe.
            fixed: the solver's other arguments.
        """
        logs = {
            name: torch.tensor(moved, dtype=torch.float64, requires_grad=self.start[name] > 0)
            for name, moved in self.moved.items()
        }
        scalars = {ARGUMENTS[name]: self.start[name] * log.exp() for name, log in logs.items()}
        shares = earlier.P @ solver(earlier, **scalars, **fixed).weights
        bound = self.curvature / 2 * (earlier.R @ shares).square().sum() - alignment @ shares
        if not bound.requires_grad:  # every scalar is 0, or the solve has failed
            return
        learnt = [name for name, log in logs.items() if log.requires_grad]
        gradients = torch.autograd.grad(
            bound, [logs[name] for name in learnt], allow_unused=True, materialize_grads=True
        )
        scale = max(alignment.abs().max().item(), 1e-12)
        for name, gradient in zip(learnt, gradients, strict=True):
            step = -RATE * gradient.item() / scale
            if math.isfinite(step):
                moved = self.moved[name] + max(-LARGEST_STEP, min(LARGEST_STEP, step))
                self.moved[name] = max(-FURTHEST, min(FURTHEST, moved))

    def state_dict(self) -> dict[str, Any]:
        """How far each logarithm has moved."""
        return {"moved": dict(self.moved)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.moved = dict(state["moved"])
