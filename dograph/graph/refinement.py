"""From a cone solver's answer to the exact minimum, and the check that it is one.

In a cone programme ``‖F w‖²`` is bounded by a variable of its own, known to the solver's 1e-12;
the weights behind it are then only known to the square root, 1e-6. Which constraints bind is clear
by then, and given these the minimum is the solution of a linear system (the "polish" of OSQP,
Stellato et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TIGHT = 1e-5
EXACT = 1e-9
ROUNDING = 1e-15
SMALLEST = 1e-12
NEWTON_STEPS = 8


@dataclass(frozen=True)
class Programme:
    """Minimise ``‖F w‖² + c·w + μ Σ w ln w``, ``w ≥ lowest``, ``Σ w = 1``, ``|A w| ≤ limits``.

    Attributes:
        root: (m, m) F.
        linear: (m,) c.
        lowest: (m,) the smallest weights allowed, ≥ 0, of sum < 1.
        rows: (r, m) A; None for no such constraints.
        limits: (r,) ≥ 0; None without rows.
        inside: (m,) weights that keep all constraints, whatever the limits, so that ``A inside``
            is 0; needed with rows.
        entropy: μ ≥ 0.
    """

    root: Tensor
    linear: Tensor
    lowest: Tensor
    rows: Tensor | None = None
    limits: Tensor | None = None
    inside: Tensor | None = None
    entropy: float = 0.0

    def differences(self, weights: Tensor) -> Tensor:
        """(r,) ``A w``, none where nothing limits them."""
        return weights.new_empty(0) if self.rows is None else self.rows @ weights

    def objective(self, weights: Tensor) -> float:
        """``‖F w‖² + c·w``."""
        return float((self.root @ weights).square().sum() + self.linear @ weights)

    def violation(self, weights: Tensor) -> float:
        """By how much the worst constraint is violated; ≤ 0 for feasible weights."""
        gaps = [(weights.sum() - 1).abs(), (self.lowest - weights).max()]
        if self.limits is not None and len(self.limits):
            gaps.append((self.differences(weights).abs() - self.limits).max())
        return float(torch.stack(gaps).max())

    def gap(self, weights: Tensor) -> float:
        """How far the objective can be above its minimum at feasible weights, at most.

        Without limits this is Frank and Wolfe's bound. With limits it is a necessary condition
        only: no descent may lead towards the weights that keep all constraints.
        """
        slope = self.slope(weights)
        return float(slope @ weights - self.least(slope))

    def slope(self, weights: Tensor) -> Tensor:
        """(m,) the objective's gradient."""
        slope = 2 * self.root.T @ (self.root @ weights) + self.linear
        if self.entropy:
            slope = slope + self.entropy * (weights.clamp(min=SMALLEST).log() + 1)
        return slope

    def least(self, slope: Tensor) -> Tensor:
        """The least ``slope · w`` over all feasible weights; with limits, that of ``inside``."""
        if self.inside is not None and self.limits is not None:
            return slope @ self.inside
        return self.lowest @ slope + (1 - self.lowest.sum()) * slope.min()


@torch.no_grad()
def refine(programme: Programme, found: Tensor) -> Tensor:
    """Solves for the weights exactly, taking as binding what nearly binds at ``found``.

    Args:
        programme: the problem.
        found: (m,) a solver's answer, within about 1e-6.

    Returns:
        (m,) the exact minimum; ``found`` itself where its binding constraints prove not to be
        those of the minimum (a constraint broken, or a multiplier of the wrong sign and no gain).
    """
    if programme.entropy:
        return found if programme.rows is not None else _entropic_minimum(programme, found)
    m = len(found)
    low = found - programme.lowest < TIGHT
    rows = [torch.ones(1, m, dtype=found.dtype), torch.eye(m, dtype=found.dtype)[low]]
    values = [torch.ones(1, dtype=found.dtype), programme.lowest[low]]
    free_sign = [torch.tensor([True]), torch.zeros(len(rows[1]), dtype=torch.bool)]
    if programme.limits is not None and programme.rows is not None:
        difference = programme.differences(found)
        bound = difference.abs() > programme.limits - TIGHT
        sign, limit = difference[bound].sign(), programme.limits[bound]
        # Minus, so that like a low weight's its multiplier is ≤ 0 at the minimum.
        rows.append(-sign[:, None] * programme.rows[bound])
        values.append(-limit)
        free_sign.append(limit == 0)
    matrix, target = torch.cat(rows), torch.cat(values)
    weights, multipliers = _equality_minimum(programme, matrix, target)
    weights[low] = programme.lowest[low]  # without the linear system's rounding
    signs_right = bool((multipliers[~torch.cat(free_sign)] <= EXACT).all())
    # Constraints that depend on each other have multipliers of any sign; the objective then tells.
    right = signs_right or programme.objective(weights) < programme.objective(found) - ROUNDING
    return weights if right and programme.violation(weights) <= EXACT else found


def _entropic_minimum(programme: Programme, found: Tensor) -> Tensor:
    """Newton's method in ratios, so that small weights become as exact as large ones."""
    weights = found.clamp(min=SMALLEST).maximum(programme.lowest)
    for _ in range(NEWTON_STEPS):
        slope = programme.slope(weights)
        free = weights > programme.lowest + EXACT
        curvature = 2 * programme.root.T @ programme.root + torch.diag(programme.entropy / weights)
        inside = curvature[free][:, free]
        one = torch.ones(int(free.sum()), 1, dtype=weights.dtype)
        system = torch.cat(
            [torch.cat([inside, one], dim=1), torch.cat([one.T, one.new_zeros(1, 1)], dim=1)]
        )
        right = torch.cat([-slope[free], one.new_zeros(1)])
        step = torch.linalg.solve(system, right)[:-1]
        ratio = (step / weights[free]).clamp(-1, 1).exp()
        weights = weights.clone()
        weights[free] = (weights[free] * ratio).maximum(programme.lowest[free])
        weights[free] *= (1 - weights[~free].sum()) / weights[free].sum()
    return weights


def _equality_minimum(
    programme: Programme, matrix: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Minimum over ``matrix @ w = target`` and its multipliers, from the optimality system."""
    m, count = len(programme.linear), len(target)
    quadratic = 2 * programme.root.T @ programme.root
    corner = torch.zeros(count, count, dtype=matrix.dtype)
    system = torch.cat(
        [torch.cat([quadratic, matrix.T], dim=1), torch.cat([matrix, corner], dim=1)]
    )
    # Least squares, since binding constraints may depend on each other.
    right = torch.cat([-programme.linear, target])
    solution = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:, 0]
    return solution[:m], solution[m:]
