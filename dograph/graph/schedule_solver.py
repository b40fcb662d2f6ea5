"""Sampling weights over sources by a graph of clusters (ours; docs/method.md)."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
from dograph.graph.problem import SMALLEST_WEIGHT

Geometry = Literal["euclidean", "entropic"]
SMALLEST_ENTROPIC = 1e-8
"""Lower bound of an entropic step: the solver cannot tell a smaller weight from 0, where the
gradient is infinite."""


class ScheduleProblem(NamedTuple):
    """Data of a schedule's problem.

    Attributes:
        b: (K,) alignment of each cluster's mean gradient with the target's.
        R: (r, K) root of the clusters' kernel, ``RᵀR = MᵀM``, in b's units.
        laplacian_root: (E, K), a row ``√A_ij (e_i − e_j)`` for each edge (``edge_rows``):
            ``SᵀS = L``; its rows also say where the edges are; rows of 0 are no edges.
        P: (K, S) share of each cluster in each source; columns sum to 1.
        prior: (S,) α_0 > 0 on the simplex.
        previous: (S,) α_prev on the simplex.
    """

    b: Tensor
    R: Tensor
    laplacian_root: Tensor
    P: Tensor
    prior: Tensor
    previous: Tensor


class ScheduleSolver(nn.Module):
    """Sampling weights α over S sources, judged by what their K clusters teach.

    With ``w = P α``, ``w̃_c = w_c / (P α_0)_c`` it minimises over α ≥ ε α_0, Σ_s α_s = 1

        − ⟨b, w⟩                      alignment with the target
        + (κ/2) ‖R w‖²                curvature: the descent lemma's second term
        + (λ/2) w̃ᵀ L w̃                neighbours in the graph move together
        + (ν/2) Σ_s (α_s − α_0s)²/α_0s    pull to the prior
        + (μ/2) ‖α − α_prev‖²         or μ KL(α ‖ α_prev) if ``geometry`` is "entropic"
        subject to |w̃_i − w̃_j| ≤ δ on every edge (i, j)      if ``edges``

    The prior keeps every constraint, so that there is always a solution. All quadratic terms join
    one matrix over α. Differentiable in every input. A failed solve never raises: see
    ``Solution.ok``; its weights are α_prev.

    Args:
        edges: whether the constraints with δ are included.
        geometry: distance of the proximal term.
        floor: ε in [0, 1).
        backend: the solver of the euclidean geometry, see ``minimise``; the entropic one's is
            cvxpylayers.

    Attributes:
        solves: number of calls.
        failures: how many of them fell back.
        terms: each term's value at the last solution, by name.
    """

    def __init__(
        self,
        *,
        edges: bool = False,
        geometry: Geometry = "euclidean",
        floor: float = 0.1,
        backend: Backend = "piqp",
    ) -> None:
        super().__init__()
        check_range("floor", floor, at_least=0, below=1)
        self.edges, self.geometry, self.floor, self.backend = edges, geometry, floor, backend
        self.reset()

    def reset(self) -> None:
        """Clears counts and terms."""
        self.solves = self.failures = 0
        self.terms: dict[str, float] = {}

    def forward(
        self,
        problem: ScheduleProblem,
        *,
        kappa: float | Tensor = 1.0,
        lam: float | Tensor = 0.0,
        mu: float | Tensor = 1.0,
        nu: float | Tensor = 0.0,
        delta: float | Tensor = 1.0,
    ) -> Solution:
        """Solves for (S,) weights; κ, λ, μ, ν, δ ≥ 0, μ > 0 for the entropic geometry."""
        self.solves += 1
        self.terms = {}
        solution = solve_or_fall_back(
            lambda: self._solve(
                ScheduleProblem(*map(as_float64, problem)),
                *map(as_float64, (kappa, lam, mu, nu, delta)),
            ),
            lambda: as_float64(problem.previous).detach().clone(),
        )
        self.failures += not solution.ok
        return solution

    def _solve(self, problem: ScheduleProblem, *scalars: Tensor) -> Tensor:
        P, prior, previous = problem.P, problem.prior, problem.previous
        kappa, lam, mu, nu, delta = scalars
        relative = P / (P @ prior)[:, None]  # w̃ = relative @ α
        curvature, smoothness = problem.R @ P, problem.laplacian_root @ relative
        quadratic = (kappa * curvature.T @ curvature + lam * smoothness.T @ smoothness) / 2
        quadratic = quadratic + nu / 2 * torch.diag(1 / prior)
        linear = -P.T @ problem.b - nu
        lower, entropy = self.floor * prior, None
        if self.geometry == "entropic":
            # A weight of 0 could never grow.
            linear = linear - mu * previous.clamp(min=SMALLEST_WEIGHT).log()
            lower, entropy = lower.clamp(min=SMALLEST_ENTROPIC), mu
        else:
            quadratic = quadratic + mu / 2 * torch.eye(len(prior), dtype=torch.float64)
            linear = linear - mu * previous
        rows = limits = None
        if self.edges:
            differences = problem.laplacian_root.detach().sign()  # e_i − e_j of every edge
            rows = differences[differences.any(dim=1)] @ relative
            limits = delta.expand(len(rows)).clamp(max=NO_LIMIT / prior.min().item())
        weights = minimise(
            quadratic, linear, lower, rows, limits, entropy=entropy, backend=self.backend
        )
        with torch.no_grad():
            self.terms = self._terms(problem, weights, *scalars)
        return weights

    def _terms(
        self, problem: ScheduleProblem, weights: Tensor, *scalars: Tensor
    ) -> dict[str, float]:
        """Each term's value, by name."""
        P, prior = problem.P, problem.prior
        kappa, lam, mu, nu, _ = scalars
        relative = P / (P @ prior)[:, None]
        distance = (weights - problem.previous).square().sum() / 2
        if self.geometry == "entropic":
            ratio = weights / problem.previous.clamp(min=SMALLEST_WEIGHT)
            distance = torch.special.xlogy(weights, ratio).sum()
        values = {
            "alignment": -problem.b @ P @ weights,
            "curvature": kappa / 2 * (problem.R @ P @ weights).square().sum(),
            "graph": lam / 2 * (problem.laplacian_root @ relative @ weights).square().sum(),
            "prior": nu / 2 * ((weights - prior).square() / prior).sum(),
            "proximity": mu * distance,
        }
        return {name: float(value) for name, value in values.items()}
