"""The domain-weight problem: a quadratic program that can be differentiated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dograph.errors import UserError, check_range
from dograph.graph import domain_graph
from dograph.graph.kernel import kernel_distances
from dograph.graph.minimise import (
    NO_LIMIT,
    Backend,
    Solution,
    as_float64,
    minimise,
    solve_or_fall_back,
)
from dograph.graph.problem import RIDGE


class GraphSolver(nn.Module):
    """Weights of the domains of a graph (method of arXiv 2604.07963, ``uncertainty``).

    With ``s = tr K / m``, over ``w ≥ floor/m``, ``Σ_j w_j = 1``, it minimises

        wᵀ(K/s + 1e-6 I)w + (β/s) Σ_j σ_j² w_j       node costs less dispersion, and spread
          + γ wᵀLw                                    if ``laplacian``: neighbours alike
          + ν Σ_j (w_j − p_j)² / p_j                  if ``anchor``: χ² pull to shares p_j = n_j/n
        subject to |w_i − w_j| ≤ δ on every edge      if ``edges``

    The first line is the paper's objective ``wᵀKw + β Σ_j σ_j² w_j`` divided by s, so that (but for
    the ridge) its minimum is the paper's at the same β; γ and ν, which are ours, become pure
    numbers by it. β is one too where σ² has K's units; the ``printed`` σ² (``cluster_spread``) has
    units of ‖g‖⁴, so that β then has a unit. As Σ_j w_j = 1, every quadratic term joins one matrix
    ``K/s + 1e-6 I + γL + ν diag(1/p)`` (the anchor's linear part is constant). Each solve starts
    afresh: the answer does not depend on what was solved before.

    Differentiable in every input. A solve that fails never raises: see ``Solution.ok``.

    Args:
        laplacian: whether the term with γ is included.
        edges: whether the constraints with δ are included.
        anchor: whether the term with ν is included; ``forward`` then needs ``counts``.
        floor: ε in [0, 1), every weight is at least ε/m.
        neighbours: k of the mutual nearest-neighbour graph built where no affinity is given.
        backend: the solver, see ``minimise``.

    Attributes:
        solves: number of calls.
        failures: how many of them fell back.

    >>> GraphSolver()(torch.diag(torch.tensor([1.0, 3.0])), torch.zeros(2)).weights
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """

    def __init__(
        self,
        *,
        laplacian: bool = False,
        edges: bool = False,
        anchor: bool = False,
        floor: float = 0.0,
        neighbours: int = 3,
        backend: Backend = "piqp",
    ) -> None:
        super().__init__()
        check_range("floor", floor, at_least=0, below=1)
        check_range("neighbours", neighbours, at_least=1)
        self.laplacian, self.edges, self.anchor = laplacian, edges, anchor
        self.floor, self.neighbours, self.backend = floor, neighbours, backend
        self.solves = self.failures = 0

    def forward(
        self,
        K: Tensor,
        spread: Tensor,
        counts: Tensor | None = None,
        *,
        beta: float | Tensor = 0.1,
        gamma: float | Tensor = 0.1,
        delta: float | Tensor = 0.1,
        nu: float | Tensor = 1.0,
        affinity: Tensor | None = None,
    ) -> Solution:
        """Solves the problem.

        Args:
            K: (m, m) kernel of the domains' mean sketches, symmetric positive semi-definite.
            spread: (m,) σ² ≥ 0, in K's units unless ``printed``.
            counts: (m,) sequences n_j > 0 in each domain; also the fallback's proportions.
            beta: β ≥ 0, like γ and ν a pure number.
            gamma: γ ≥ 0.
            delta: δ ≥ 0, the largest difference of weights along an edge.
            nu: ν ≥ 0.
            affinity: (m, m) edge strengths ≥ 0, 0 for no edge; None: from K's distances.

        Returns:
            A ``Solution`` with weights on K's device. If the inputs are not finite or the solver
            fails, ``ok`` is False and the weights are ``n_j/n``, or uniform without counts.
        """
        if self.anchor and counts is None:
            raise UserError("GraphSolver(anchor=True) pulls to n_j/n: pass counts")
        self.solves += 1
        solution = solve_or_fall_back(
            lambda: self._solve(K, spread, counts, affinity, beta, gamma, delta, nu),
            lambda: _fallback(K, counts),
        )
        self.failures += not solution.ok
        return solution

    def _solve(
        self,
        K: Tensor,
        spread: Tensor,
        counts: Tensor | None,
        affinity: Tensor | None,
        *scalars: float | Tensor,
    ) -> Tensor:
        beta, gamma, delta, nu = map(as_float64, scalars)
        kernel = as_float64(K)
        graph = None
        if self.laplacian or self.edges:
            if affinity is None:
                affinity = domain_graph.affinity(kernel_distances(kernel), self.neighbours)
            graph = as_float64(affinity)
        scale = kernel_scale(kernel)
        if scale < 0:
            raise ArithmeticError("K is not positive semi-definite: its trace is negative")
        quadratic = kernel / scale + RIDGE * torch.eye(len(kernel), dtype=torch.float64)
        linear = beta * as_float64(spread) / scale
        if self.laplacian and graph is not None:
            quadratic = quadratic + gamma * domain_graph.laplacian(graph)
        if self.anchor and counts is not None:
            shares = as_float64(counts) / as_float64(counts).sum()
            quadratic = quadratic + nu * torch.diag(1 / shares)
        rows = limits = None
        if self.edges and graph is not None:
            rows = domain_graph.edge_differences(graph)
            limits = delta.clamp(max=NO_LIMIT).expand(len(rows))
        lower = torch.full_like(linear, self.floor / len(linear))
        weights = minimise(quadratic, linear, lower, rows, limits, backend=self.backend)
        return weights.to(K.device)


def kernel_scale(K: Tensor) -> Tensor:
    """``s = tr K / m``, the mean squared norm; 1 where that is 0, so that it can divide."""
    scale = K.diagonal().mean()
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _fallback(K: Tensor, counts: Tensor | None) -> Tensor:
    """``n_j/n``, or uniform."""
    uniform = torch.full((len(K),), 1 / len(K), dtype=torch.float64, device=K.device)
    if counts is None:
        return uniform
    shares = counts.detach().to(uniform)
    shares = shares / shares.sum()
    return shares if bool(torch.isfinite(shares).all() and (shares >= 0).all()) else uniform
