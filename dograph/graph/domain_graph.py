"""The domain graph: nodes are domains, edges the distances of their mean gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dograph.graph.clusters import cluster_counts, cluster_means, cluster_spread
from dograph.graph.kernel import gradient_kernel, squared_distances


@dataclass
class DomainGraph:
    """A batch's or a window's domain graph with its weights.

    On the simplex ``wᵀKw = Σ_i K_ii w_i − ½ Σ_ij D_ij w_i w_j``: the published objective is node
    costs less dispersion along the edges of the complete graph (ours, an identity).

    Attributes:
        kernel: (m, m) K, inner products of the clusters' mean sketches.
        distances: (m, m) D, their squared distances, the squared MMD.
        spread: (m,) σ², each cluster's spread around its mean.
        counts: (m,) sequences in each cluster.
        labels: (n,) cluster of each sequence.
        weights: (m,) on the simplex.
    """

    kernel: Tensor
    distances: Tensor
    spread: Tensor
    counts: Tensor
    labels: Tensor
    weights: Tensor


def domain_graph(
    sketches: Tensor, labels: Tensor, spread: Literal["mean", "printed"] = "mean"
) -> DomainGraph:
    """Builds the graph of a batch's or a window's clusters, weighted by their sequences.

    Args:
        sketches: (n, k).
        labels: (n,) int64, 0 … m − 1, each one in use.
        spread: form of σ², see ``cluster_spread``.
    """
    exact = sketches.to(torch.float64)
    means, counts = cluster_means(exact, labels), cluster_counts(labels)
    return DomainGraph(
        kernel=gradient_kernel(means),
        distances=squared_distances(means),
        spread=cluster_spread(exact, labels, form=spread),
        counts=counts,
        labels=labels,
        weights=counts.double() / counts.sum(),
    )


def affinity(distances: Tensor, neighbours: int) -> Tensor:
    """Edge strengths ``A_ij = exp(−D_ij / median D)`` on a mutual nearest-neighbour graph (ours).

    Args:
        distances: (m, m) squared distances with a zero diagonal.
        neighbours: k ≥ 1; i and j are joined if each is among the other's k nearest.

    Returns:
        (m, m) symmetric, zero diagonal, in (0, 1] where there is an edge and 0 elsewhere;
        differentiable in the distances. The median is over the pairs i < j, without the zero
        diagonal.
    """
    m = len(distances)
    if m == 1:
        return torch.zeros_like(distances)
    diagonal = torch.eye(m, dtype=torch.bool, device=distances.device)
    nearest = distances.detach().masked_fill(diagonal, torch.inf)
    chosen = nearest.topk(min(neighbours, m - 1), largest=False).indices
    near = torch.zeros_like(diagonal).scatter_(1, chosen, True)
    pairs = torch.triu_indices(m, m, 1, device=distances.device)
    scale = distances[pairs[0], pairs[1]].quantile(0.5)
    # More than half of the pairs coincide: any scale then gives them the affinity 1.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.where(near & near.T, torch.exp(-distances / scale), torch.zeros_like(distances))


def laplacian(affinity: Tensor) -> Tensor:
    """(m, m) graph Laplacian ``L = diag(A 1) − A``: ``wᵀLw = ½ Σ_ij A_ij (w_i − w_j)²``."""
    return torch.diag(affinity.sum(dim=1)) - affinity


def edge_differences(affinity: Tensor) -> Tensor:
    """(E, m) rows ``e_i − e_j`` of the edges i < j, float64: ``rows @ w`` are differences."""
    first, second = affinity.detach().triu(1).nonzero(as_tuple=True)
    identity = torch.eye(len(affinity), dtype=torch.float64, device=affinity.device)
    return identity[first] - identity[second]


def edge_rows(affinity: Tensor) -> Tensor:
    """(E, m) float64 S with ``SᵀS = L``: a row ``√A_ij (e_i − e_j)`` for each edge i < j (ours)."""
    strengths = affinity[affinity.detach().triu(1) != 0].double()
    return strengths.sqrt()[:, None] * edge_differences(affinity)
