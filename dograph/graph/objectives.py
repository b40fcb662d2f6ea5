"""The published objectives that need no solver (arXiv 2604.07963, appendix A.6).

All are functions of the clusters' kernel ``K_ij = ⟨ḡ_i, ḡ_j⟩``, so that no gradient is needed
again. Entries of K that are not finite give weights that are not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dograph.graph.graph_solver import kernel_scale


def alignment(K: Tensor, iterations: int = 5) -> Tensor:
    """Weights by agreement with the mixture's gradient: ``w_j ∝ cos(ḡ_j, Σ_i w_i ḡ_i)₊``.

    A fixed point reached from uniform weights, the paper's "few fixed-point steps".

    Args:
        K: (m, m) kernel of the clusters' means.
        iterations: steps ≥ 0.

    Returns:
        (m,) float64 on the simplex; uniform where no cosine is positive.

    >>> alignment(torch.eye(2), iterations=3).tolist()
    [0.5, 0.5]
    """
    exact = K.to(torch.float64)
    norms = exact.diagonal().clamp(min=0).sqrt()
    weights = uniform = torch.full_like(norms, 1 / len(norms))
    for _ in range(iterations):
        agreement = exact @ weights
        # The mixture's own norm is common to all cosines and drops out on normalising.
        cosine = torch.where(norms > 0, agreement / norms.clamp(min=1e-300), 0 * agreement)
        positive = cosine.clamp(min=0)
        total = positive.sum()
        weights = uniform if total == 0 else positive / total
    return weights


def robust(K: Tensor, tau: float = 1.0) -> Tensor:
    """Weights by the size of the mean gradient: ``w_j ∝ exp(‖ḡ_j‖² / (τ s))``, ``s = tr K / m``.

    The paper prints no scale; ours makes τ a pure number, as β is in the solver's problem.

    Args:
        K: (m, m) kernel of the clusters' means.
        tau: temperature > 0; large is uniform, small puts all weight on the largest gradient.

    Returns:
        (m,) float64 on the simplex; overflow safe.
    """
    exact = K.to(torch.float64)
    return torch.softmax(exact.diagonal() / (tau * kernel_scale(exact)), dim=0)
