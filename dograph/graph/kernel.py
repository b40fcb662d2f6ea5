"""The gradient kernel: inner products of gradients (arXiv 2604.07963, theorem 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def gradient_kernel(sketches: Tensor) -> Tensor:
    """(n, n) float64 ``K_ij = ⟨g_i, g_j⟩`` (the paper's gradient-induced kernel).

    Args:
        sketches: (n, k) sketches or exact gradients, one a row; or cluster means.

    >>> gradient_kernel(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    # Double precision: the solver factorises K, and float32 rounding can make it indefinite.
    exact = sketches.to(torch.float64)
    products = exact @ exact.T
    return (products + products.T) / 2  # BLAS does not promise symmetry to the last bit


def kernel_distances(kernel: Tensor) -> Tensor:
    """(m, m) squared distances of a kernel, ``D_ij = K_ii + K_jj − 2 K_ij``; differentiable."""
    norms = kernel.diagonal()
    distances = (norms[:, None] + norms[None, :] - 2 * kernel).clamp(min=0)
    return distances - torch.diag(distances.diagonal())


def squared_distances(means: Tensor) -> Tensor:
    """(m, m) float64 squared distances of (m, k) mean gradients, ``D_ij = ‖ḡ_i − ḡ_j‖²``.

    By theorem 2.2 this is the squared maximum mean discrepancy of domains i and j under the
    gradient kernel: the edge lengths of the domain graph.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [[0.0, 25.0], [25.0, 0.0]]
    """
    exact = means.to(torch.float64)
    # A common shift leaves distances alone; without it far less cancels in the difference.
    return kernel_distances(gradient_kernel(exact - exact.mean(dim=0)))


def kernel_root(kernel: Tensor) -> Tensor:
    """(m, m) F with ``FᵀF = K``, of an (m, m) K that is positive semi-definite up to rounding."""
    values, vectors = torch.linalg.eigh(kernel)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T
