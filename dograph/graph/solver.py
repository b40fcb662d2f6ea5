"""The domain-weight problem: a quadratic programme that can be differentiated."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.graph.domain_graph import affinity as neighbour_affinity
from dograph.graph.domain_graph import edge_differences
from dograph.graph.domain_graph import laplacian as graph_laplacian
from dograph.graph.kernel import kernel_distances
from dograph.graph.minimum import NO_EDGE, Backend, Solution, exact, minimum
from dograph.graph.programme import RIDGE


class GraphSolver(nn.Module):
    """Weights of the domains of a graph (method of arXiv 2604.07963, ``uncertainty``).

    With ``s = tr K / m``, over ``w ≥ floor/m``, ``Σ_j w_j = 1``, it minimises

        wᵀ(K/s + 1e-6 I)w + (β/s) Σ_j σ_j² w_j       node costs less dispersion, and spread
          + γ wᵀLw                                    if ``laplacian``: neighbours alike
          + ν Σ_j (w_j − p_j)² / p_j                  if ``anchor``: χ² pull to shares p_j = n_j/n
        subject to |w_i − w_j| ≤ δ on every edge      if ``edges``

    The first line is the paper's with our scaling; the rest is ours. As Σ_j w_j = 1, every
    quadratic term joins one matrix ``K/s + 1e-6 I + γL + ν diag(1/p)`` (the anchor's linear part is
    constant). Each solve starts afresh: the answer does not depend on what was solved before.

    Differentiable in every input. A solve that fails never raises: see ``Solution.ok``.

    Args:
        laplacian: whether γ counts.
        edges: whether δ counts.
        anchor: whether ν counts; ``forward`` then needs ``counts``.
        floor: ε in [0, 1), every weight is at least ε/m.
        neighbours: k of the mutual nearest-neighbour graph built where no affinity is given.
        backend: the solver, see ``minimum``.

    Attributes:
        solves: calls so far.
        failures: those of them that fell back.

    Raises:
        UserError: if ``floor`` or ``neighbours`` is out of range.

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
        if not 0 <= floor < 1:
            raise UserError(f"floor is {floor}: it must lie in [0, 1)")
        if neighbours < 1:
            raise UserError(f"neighbours is {neighbours}: it must be ≥ 1")
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
            spread: (m,) σ², in K's units, ≥ 0.
            counts: (m,) sequences n_j > 0 in each domain; also the fallback's proportions.
            beta: β ≥ 0, a pure number.
            gamma: γ ≥ 0, a pure number.
            delta: δ ≥ 0, the largest difference of weights along an edge.
            nu: ν ≥ 0, a pure number.
            affinity: (m, m) edge strengths ≥ 0, 0 for no edge; None: from K's distances.

        Returns:
            A ``Solution`` with weights on K's device. If the inputs are not finite or the solver
            fails, ``ok`` is False and the weights are ``n_j/n``, or uniform without counts.

        Raises:
            UserError: if the solver has an anchor and there are no counts.
        """
        if self.anchor and counts is None:
            raise UserError("GraphSolver(anchor=True) pulls to n_j/n: pass it the counts")
        start = time.perf_counter()
        self.solves += 1
        try:
            graph = self._graph(K, affinity)
            quadratic, linear = _published_objective(K, spread, beta)
            if self.laplacian and graph is not None:
                quadratic = quadratic + exact(gamma) * graph_laplacian(graph)
            if self.anchor and counts is not None:
                shares = exact(counts) / exact(counts).sum()
                quadratic = quadratic + exact(nu) * torch.diag(1 / shares)
            rows = limits = None
            if self.edges and graph is not None:
                rows = edge_differences(graph)
                limits = exact(delta).clamp(max=NO_EDGE).expand(len(rows))
            lowest = torch.full_like(linear, self.floor / len(linear))
            weights = minimum(quadratic, linear, lowest, rows, limits, backend=self.backend)
            weights = weights.to(K.device)
            status = "optimal"
        except Exception as error:  # no batch is worth a training run: the caller sees `ok`
            self.failures += 1
            weights, status = _fallback(K, counts), f"failed: {error}"
        return Solution(weights, status, time.perf_counter() - start)

    def _graph(self, K: Tensor, affinity: Tensor | None) -> Tensor | None:
        if not (self.laplacian or self.edges):
            return None
        if affinity is None:
            affinity = neighbour_affinity(kernel_distances(exact(K)), self.neighbours)
        return exact(affinity)


def kernel_scale(K: Tensor) -> Tensor:
    """``s = tr K / m``, the mean squared norm; 1 where that is 0, so that it can divide.

    Args:
        K: (m, m) kernel.

    Returns:
        A scalar > 0 of K's type (not finite where K is not).
    """
    scale = K.diagonal().mean()
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _published_objective(K: Tensor, spread: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    """(m, m) H and (m,) c of the scaled ``uncertainty`` objective ``wᵀHw + c·w``."""
    kernel = exact(K)
    scale = kernel_scale(kernel)
    if scale < 0:
        raise ArithmeticError("K is not positive semi-definite: its trace is negative")
    ridge = RIDGE * torch.eye(len(kernel), dtype=torch.float64)
    return kernel / scale + ridge, exact(beta) * exact(spread) / scale


def _fallback(K: Tensor, counts: Tensor | None) -> Tensor:
    m = K.shape[-1]
    if counts is not None:
        shares = counts.detach().to(K.device, torch.float64)
        shares = shares / shares.sum()
        if torch.isfinite(shares).all() and (shares >= 0).all():
            return shares
    return torch.full((m,), 1 / m, dtype=torch.float64, device=K.device)
