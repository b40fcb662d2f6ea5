"""The domain-weight problem: a quadratic programme that can be differentiated."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.graph.domain_graph import affinity as neighbour_affinity
from dograph.graph.domain_graph import laplacian as graph_laplacian
from dograph.graph.minimum import NO_EDGE, RIDGE, Solution, exact, minimum
from dograph.signals.kernel import kernel_distances

if TYPE_CHECKING:
    from cvxpylayers.torch import CvxpyLayer


class GraphSolver(nn.Module):
    """Weights of the domains of a graph (method of arXiv 2604.07963, ``uncertainty``).

    With ``s = tr K / m``, over ``w ≥ floor/m``, ``Σ_j w_j = 1``, it minimises

        wᵀ(K/s + 1e-6 I)w + (β/s) Σ_j σ_j² w_j       node costs less dispersion, and spread
          + γ wᵀLw                                    if ``laplacian``: neighbours alike
          + ν Σ_j (w_j − p_j)² / p_j                  if ``anchor``: χ² pull to shares p_j = n_j/n
        subject to |w_i − w_j| ≤ δ on every edge      if ``edges``

    The first line is the paper's with our scaling; the rest is ours. As Σ_j w_j = 1, every
    quadratic term joins one matrix ``FᵀF = K/s + 1e-6 I + γL + ν diag(1/p)`` (the anchor's linear
    part is constant). So the cone programme is the same for all terms, a fifth quicker at m = 11
    than one cone a term, and differentiable where a root of γL is not: at γ = 0 and in L's null
    space. Each size is canonicalised once a process, whichever solver asks.

    Differentiable in every input. A solve that fails never raises: see ``Solution.ok``.

    Args:
        laplacian: whether γ counts.
        edges: whether δ counts.
        anchor: whether ν counts; ``forward`` then needs ``counts``.
        floor: ε in [0, 1), every weight is at least ε/m.
        neighbours: k of the mutual nearest-neighbour graph built where no affinity is given.

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
    ) -> None:
        super().__init__()
        if not 0 <= floor < 1:
            raise UserError(f"floor is {floor}: it must lie in [0, 1)")
        if neighbours < 1:
            raise UserError(f"neighbours is {neighbours}: it must be ≥ 1")
        self.laplacian, self.edges, self.anchor = laplacian, edges, anchor
        self.floor, self.neighbours = floor, neighbours
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
            quadratic = quadratic + self._optional_terms(graph, gamma, counts, nu)
            limits = self._limits(graph, delta)
            weights = self._solve(quadratic, linear, limits).to(K.device)
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

    def _optional_terms(
        self,
        graph: Tensor | None,
        gamma: float | Tensor,
        counts: Tensor | None,
        nu: float | Tensor,
    ) -> Tensor:
        """What the Laplacian and the anchor add to the quadratic form; a zero without them."""
        terms = torch.zeros((), dtype=torch.float64)
        if self.laplacian and graph is not None:
            terms = terms + exact(gamma) * graph_laplacian(graph)
        if self.anchor and counts is not None:
            terms = terms + exact(nu) * torch.diag(exact(counts).sum() / exact(counts))
        return terms

    def _limits(self, graph: Tensor | None, delta: float | Tensor) -> Tensor | None:
        """(m(m−1)/2,) bound on |w_i − w_j| for each pair i < j; None without edges."""
        if not self.edges or graph is None or len(graph) == 1:
            return None
        joined = graph[tuple(torch.triu_indices(len(graph), len(graph), 1))] > 0
        return torch.where(joined, exact(delta), torch.tensor(NO_EDGE).double())

    def _solve(self, quadratic: Tensor, linear: Tensor, limits: Tensor | None) -> Tensor:
        """(m,) the checked solution; raises ArithmeticError where there is none."""
        m = len(linear)
        return minimum(
            domain_layer(m, limits is not None, self.floor),
            quadratic,
            linear,
            torch.full((m,), self.floor / m, dtype=torch.float64),
            () if limits is None else (limits,),
            rows=None if limits is None else torch.from_numpy(pair_differences(m)),
            limits=limits,
            inside=torch.full((m,), 1 / m, dtype=torch.float64),
        )


@functools.cache
def domain_layer(size: int, edges: bool, floor: float) -> CvxpyLayer:
    """The cone programme of ``size`` domains, canonicalised once a process and re-used.

    Kept outside the modules that use it, so that no state_dict, copy or pickle sees it.

    Args:
        size: m.
        edges: whether pairs of weights are bounded.
        floor: ε.

    Returns:
        A layer from F (m, m), c (m,) and, with edges, the m(m−1)/2 bounds of the pairs i < j to w.
        All pairs are there and absent edges get a bound that cannot bind: the incidence stays
        constant and the problem DPP.
    """
    # Here, so that a run without a graph never waits for them.
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    weights, root, linear = cp.Variable(size), cp.Parameter((size, size)), cp.Parameter(size)
    constraints = [weights >= floor / size, cp.sum(weights) == 1]
    parameters = [root, linear]
    if edges:
        incidence = pair_differences(size)
        limits = cp.Parameter(len(incidence))
        constraints += [incidence @ weights <= limits, incidence @ weights >= -limits]
        parameters.append(limits)
    objective = cp.Minimize(cp.sum_squares(root @ weights) + linear @ weights)
    return CvxpyLayer(cp.Problem(objective, constraints), parameters, [weights])


@functools.cache
def pair_differences(size: int) -> npt.NDArray[np.float64]:
    """(m(m−1)/2, m) rows that give ``w_i − w_j`` of all pairs i < j."""
    first, second = np.triu_indices(size, 1)
    rows: npt.NDArray[np.float64] = np.eye(size)[first] - np.eye(size)[second]
    return rows


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
