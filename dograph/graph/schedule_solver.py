"""What to draw next: sampling weights over sources by a graph of clusters (ours; method 1b)."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.graph.minimum import NO_EDGE, Solution, exact, minimum

if TYPE_CHECKING:
    from cvxpylayers.torch import CvxpyLayer

Geometry = Literal["euclidean", "entropic"]
SMALLEST = 1e-12
"""What an entropic step may start from; weights of 0 could never grow."""
LEAST = 1e-8
"""What it may end at: the solver tells no smaller weight from 0, where the slope is infinite."""


class Problem(NamedTuple):
    """What a schedule is made from.

    Attributes:
        b: (K,) alignment of each cluster's mean gradient with the target's.
        R: (r, K) root of the clusters' kernel, ``RᵀR = MᵀM``, in b's units.
        laplacian_root: (E, K), a row ``√A_ij (e_i − e_j)`` for each edge (``edge_rows``):
            ``SᵀS = L``; its rows also say where the edges are.
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
    one matrix over α: one cone programme (DPP) per number of sources and edges, canonicalised
    once a process. Differentiable in every input. A failed solve never raises: see
    ``Solution.ok``; its weights are α_prev.

    Args:
        edges: whether δ counts.
        geometry: of the proximal term.
        floor: ε in [0, 1).

    Attributes:
        solves: calls so far.
        failures: those of them that fell back.
        terms: each term's value at the last solution, by name.
    """

    def __init__(
        self, *, edges: bool = False, geometry: Geometry = "euclidean", floor: float = 0.1
    ) -> None:
        super().__init__()
        if not 0 <= floor < 1:
            raise UserError(f"floor is {floor}: it must lie in [0, 1)")
        self.edges, self.geometry, self.floor = edges, geometry, floor
        self.reset()

    def reset(self) -> None:
        """Forgets its counts and terms."""
        self.solves = self.failures = 0
        self.terms: dict[str, float] = {}

    def forward(
        self,
        problem: Problem,
        *,
        kappa: float | Tensor = 1.0,
        lam: float | Tensor = 0.0,
        mu: float | Tensor = 1.0,
        nu: float | Tensor = 0.0,
        delta: float | Tensor = 1.0,
    ) -> Solution:
        """Solves the problem.

        Args:
            problem: what the weights are judged by.
            kappa: κ ≥ 0.
            lam: λ ≥ 0.
            mu: μ ≥ 0, > 0 for the entropic geometry.
            nu: ν ≥ 0.
            delta: δ ≥ 0.

        Returns:
            A ``Solution`` with (S,) weights.
        """
        start = time.perf_counter()
        self.solves += 1
        self.terms = {}
        try:
            weights = self._solve(
                Problem(*map(exact, problem)),
                **{"kappa": exact(kappa), "lam": exact(lam), "mu": exact(mu)},
                **{"nu": exact(nu), "delta": exact(delta)},
            )
            status = "optimal"
        except Exception as error:  # no batch is worth a training run: the caller sees `ok`
            self.failures += 1
            weights, status = exact(problem.previous).detach().clone(), f"failed: {error}"
        return Solution(weights, status, time.perf_counter() - start)

    def _solve(
        self,
        problem: Problem,
        kappa: Tensor,
        lam: Tensor,
        mu: Tensor,
        nu: Tensor,
        delta: Tensor,
    ) -> Tensor:
        P, prior, previous = problem.P, problem.prior, problem.previous
        relative = P / (P @ prior)[:, None]  # w̃ = relative @ α
        curvature, smoothness = problem.R @ P, problem.laplacian_root @ relative
        quadratic = (kappa * curvature.T @ curvature + lam * smoothness.T @ smoothness) / 2
        quadratic = quadratic + nu / 2 * torch.diag(1 / prior)
        linear = -P.T @ problem.b - nu
        entropic = self.geometry == "entropic"
        lowest = self.floor * prior
        if entropic:
            linear = linear - mu * previous.clamp(min=SMALLEST).log()
            lowest = lowest.clamp(min=LEAST)
        else:
            quadratic = quadratic + mu / 2 * torch.eye(len(prior), dtype=torch.float64)
            linear = linear - mu * previous
        rows = limits = None
        if self.edges and len(problem.laplacian_root):
            rows = edge_differences(problem.laplacian_root) @ relative
            limits = delta.expand(len(rows)).clamp(max=NO_EDGE / prior.min().item())
        weights = minimum(
            schedule_layer(len(prior), 0 if rows is None else len(rows), entropic),
            quadratic,
            linear,
            lowest,
            (lowest,) if rows is None or limits is None else (lowest, rows, limits),
            rows=rows,
            limits=limits,
            inside=prior.detach(),
            entropy=mu if entropic else None,
        )
        with torch.no_grad():
            values = {
                "alignment": -problem.b @ P @ weights,
                "curvature": kappa / 2 * (curvature @ weights).square().sum(),
                "graph": lam / 2 * (smoothness @ weights).square().sum(),
                "prior": nu / 2 * ((weights - prior).square() / prior).sum(),
                "proximity": mu * self._distance(weights, previous),
            }
            self.terms = {name: float(value) for name, value in values.items()}
        return weights

    def _distance(self, weights: Tensor, previous: Tensor) -> Tensor:
        """Half the squared distance, or the KL divergence."""
        if self.geometry == "entropic":
            return torch.special.xlogy(weights, weights / previous.clamp(min=SMALLEST)).sum()
        return (weights - previous).square().sum() / 2


@functools.cache
def schedule_layer(size: int, edges: int, entropic: bool) -> CvxpyLayer:
    """The cone programme over ``size`` sources, canonicalised once a process and re-used.

    Args:
        size: S.
        edges: rows of |A α| ≤ limits.
        entropic: whether μ Σ α ln α joins the objective.

    Returns:
        A layer from F (S, S), c (S,), μ if entropic, lowest (S,) and, with edges, A (E, S) and
        limits (E,) to α.
    """
    # Here, so that a run without a graph never waits for them.
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    weights = cp.Variable(size)
    root, linear, lowest = cp.Parameter((size, size)), cp.Parameter(size), cp.Parameter(size)
    objective = cp.sum_squares(root @ weights) + linear @ weights
    parameters = [root, linear]
    if entropic:
        entropy = cp.Parameter(nonneg=True)
        objective += entropy * cp.sum(-cp.entr(weights))
        parameters.append(entropy)
    constraints = [weights >= lowest, cp.sum(weights) == 1]
    parameters.append(lowest)
    if edges:
        rows, limits = cp.Parameter((edges, size)), cp.Parameter(edges)
        constraints += [rows @ weights <= limits, rows @ weights >= -limits]
        parameters += [rows, limits]
    return CvxpyLayer(cp.Problem(cp.Minimize(objective), constraints), parameters, [weights])


def edge_rows(affinity: Tensor, count: int | None = None) -> Tensor:
    """``S`` with ``SᵀS = L``: a row ``√A_ij (e_i − e_j)`` for each edge i < j (ours).

    Args:
        affinity: (K, K) symmetric, 0 where there is no edge.
        count: rows to make, the rest zero, so that problems of one size share a layer. None: as
            many as there are edges.

    Returns:
        (E, K), differentiable in the affinity.
    """
    size = len(affinity)
    first, second = torch.triu_indices(size, size, 1, device=affinity.device)
    joined = affinity[first, second] > 0
    first, second = first[joined], second[joined]
    identity = torch.eye(size, dtype=affinity.dtype, device=affinity.device)
    rows = affinity[first, second].sqrt()[:, None] * (identity[first] - identity[second])
    if count is None:
        return rows
    return torch.cat([rows[:count], rows.new_zeros(max(count - len(rows), 0), size)])


def edge_differences(laplacian_root: Tensor) -> Tensor:
    """(E, K) rows ``e_i − e_j`` of the same edges; zero where a row is."""
    return laplacian_root.detach().sign()
