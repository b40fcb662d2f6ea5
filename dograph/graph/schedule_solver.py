"""Sampling weights over domains by their graph (ours; docs/method.md)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dograph.errors import check_range
from dograph.graph.minimise import (
    NO_LIMIT,
    Backend,
    Solution,
    as_float64,
    minimise,
    solve_or_fall_back,
)
from dograph.graph.polytope import Polytope


class ScheduleProblem(NamedTuple):
    """Data of a schedule's problem.

    Attributes:
        b: (S,) influence: how much more of each domain the target asks for than the prior has.
        R: (r, S) root of the domains' kernel, ``RᵀR = K``, in b's units.
        laplacian_root: (E, S), a row ``√A_ij (e_i − e_j)`` for each edge (``edge_rows``):
            ``SᵀS = L``; its rows also say where the edges are; rows of 0 are no edges.
        prior: (S,) α_0 > 0 on the simplex.
    """

    b: Tensor
    R: Tensor
    laplacian_root: Tensor
    prior: Tensor


class ScheduleSolver(nn.Module):
    """Sampling weights α over S domains, the nodes of a graph of gradients.

    With ``α̃_s = α_s / α_0s`` it minimises over α ≥ ε α_0, α ≥ least, Σ_s α_s = 1

        − ⟨b, α⟩                      influence on the target
        + (κ/2) (α − α_0)ᵀK(α − α_0)   curvature: what domains have in common counts once
        + (λ/2) α̃ᵀ L α̃                neighbours in the graph move together
        + (ν/2) Σ_s (α_s − α_0s)²/α_0s    pull to the prior
        subject to |α̃_i − α̃_j| ≤ δ on every edge (i, j)      if ``edges``
                   α in a polytope, which holds the prior       if one is given

    The prior keeps every constraint, so that there is always a solution. Differentiable in every
    input. A failed solve never raises: see ``Solution.ok``; its weights are α_0.

    Args:
        edges: whether the constraints with δ are included.
        floor: ε in [0, 1).
        backend: the solver, see ``minimise``.

    Attributes:
        solves: number of calls.
        failures: how many of them fell back.
        terms: each term's value at the last solution, by name.
        prices: what each bound of the polytope costs there: its multiplier, by label.
    """

    def __init__(
        self, *, edges: bool = False, floor: float = 0.1, backend: Backend = "piqp"
    ) -> None:
        super().__init__()
        check_range("floor", floor, at_least=0, below=1)
        self.edges, self.floor, self.backend = edges, floor, backend
        self.reset()

    def reset(self) -> None:
        """Clears counts and terms."""
        self.solves = self.failures = 0
        self.terms: dict[str, float] = {}
        self.prices: dict[str, float] = {}

    def forward(
        self,
        problem: ScheduleProblem,
        *,
        kappa: float | Tensor = 1.0,
        lam: float | Tensor = 0.0,
        nu: float | Tensor = 0.0,
        delta: float | Tensor = 1.0,
        least: Tensor | None = None,
        within: Polytope | None = None,
    ) -> Solution:
        """Solves for (S,) weights; κ, λ, ν, δ ≥ 0; ``least`` (S,) at most the prior, or none.

        ``within`` holds the prior, or is None for the whole simplex.
        """
        self.solves += 1
        self.terms, self.prices = {}, {}
        solution = solve_or_fall_back(
            lambda: self._solve(
                ScheduleProblem(*map(as_float64, problem)),
                0 * problem.prior if least is None else least,
                within,
                *map(as_float64, (kappa, lam, nu, delta)),
            ),
            lambda: as_float64(problem.prior).detach().clone(),
        )
        self.failures += not solution.ok
        return solution

    def _solve(
        self, problem: ScheduleProblem, least: Tensor, within: Polytope | None, *scalars: Tensor
    ) -> Tensor:
        prior, root = problem.prior, problem.laplacian_root
        kappa, lam, nu, delta = scalars
        relative = root / prior  # of α̃'s differences
        curvature = kappa * problem.R.T @ problem.R
        quadratic = (curvature + lam * relative.T @ relative) / 2
        quadratic = quadratic + nu / 2 * torch.diag(1 / prior)
        linear = -problem.b - curvature @ prior - nu
        rows, limits = prior.new_zeros(0, len(prior)), prior.new_zeros(0)
        if self.edges:
            differences = root.detach().sign()  # e_i − e_j of every edge
            rows = differences[differences.any(dim=1)] / prior
            limits = delta.expand(len(rows)).clamp(max=NO_LIMIT / prior.min().item())
        floor, upper = torch.maximum(self.floor * prior, as_float64(least)), None
        if within is not None:
            lower, upper = torch.from_numpy(within.lower), torch.from_numpy(within.upper)
            floor = torch.maximum(torch.minimum(floor, upper), lower)
            more_rows, more_limits = map(torch.from_numpy, within.symmetric_rows())
            rows, limits = torch.cat([rows, more_rows]), torch.cat([limits, more_limits])
        weights = minimise(
            quadratic, linear, floor, rows, limits, upper=upper, backend=self.backend
        )
        with torch.no_grad():
            self.terms = _terms(problem, weights, *scalars)
            if within is not None:
                gradient = 2 * quadratic @ weights + linear
                numbers = (each.detach().numpy() for each in (gradient, weights, floor))
                self.prices = within.prices(*numbers)
        return weights


def _terms(
    problem: ScheduleProblem, weights: Tensor, kappa: Tensor, lam: Tensor, nu: Tensor, _: Tensor
) -> dict[str, float]:
    """Each term's value, by name."""
    prior = problem.prior
    values = {
        "influence": -problem.b @ weights,
        "curvature": kappa / 2 * (problem.R @ (weights - prior)).square().sum(),
        "graph": lam / 2 * (problem.laplacian_root @ (weights / prior)).square().sum(),
        "prior": nu / 2 * ((weights - prior).square() / prior).sum(),
    }
    return {name: float(value) for name, value in values.items()}
