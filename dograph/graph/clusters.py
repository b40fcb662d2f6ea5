"""Model-perceived domains: clusters of gradient sketches (arXiv 2604.07963, algorithm 1).

K-means amplifies rounding: a sequence between two centres changes its cluster, and with it the
centres, for a difference in the last bit. Where sums are added in another order, labels part: on 1
and on 2 ranks they differ after four steps.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dograph.errors import UserError, check_range


def cluster_sequences(sketches: Tensor, clusters: int, seed: int) -> Tensor:
    """Clusters a batch's sketches by K-means (algorithm 1, line 3): k-means++, one start.

    Args:
        sketches: (n, k), finite; not normalised.
        clusters: the number m ≥ 1 of domains asked for; n sequences give at most n of them.
        seed: of the initialisation; same sketches and seed, same labels.

    Returns:
        (n,) int64 on the sketches' device. Labels are 0 … m' − 1 and each one occurs: m' is
        ``clusters``, or less where there are fewer distinct sketches.

    >>> cluster_sequences(torch.tensor([[0.0], [9.0], [0.1]]), 2, seed=0).unique().tolist()
    [0, 1]
    """
    check_range("clusters", clusters, at_least=1)
    if not torch.isfinite(sketches).all():
        raise UserError(
            "a gradient sketch is not finite: training has diverged or overflowed; lower the "
            "learning rate, clip gradients, or train in bf16 instead of fp16"
        )
    # At (32, 1024) float64 takes 1.0 ms, float32 1.3 ms: it converges in more iterations.
    points = sketches.detach().to("cpu", torch.float64).numpy()
    raw = _kmeans_labels(points, min(clusters, len(points)), seed)
    labels = np.unique(raw, return_inverse=True)[1].reshape(-1)
    return torch.from_numpy(labels.astype(np.int64)).to(sketches.device)


def _kmeans_labels(points: Any, clusters: int, seed: int) -> Any:
    """(n,) labels of (n, k) points; some of 0 … ``clusters`` − 1 may have none."""
    # Imported here, so that a run without clusters never waits for it.
    import sklearn
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(clusters, init="k-means++", n_init=1, random_state=seed)
    trusted = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
    with trusted, warnings.catch_warnings():
        # Fewer distinct points than clusters is legitimate here, and the caller handles it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans.fit(points).labels_


def cluster_counts(labels: Tensor) -> Tensor:
    """(m,) int64 ``n_j``, the number of sequences in each cluster, of (n,) labels 0 … m − 1."""
    return torch.bincount(labels)


def cluster_means(sketches: Tensor, labels: Tensor) -> Tensor:
    """(m, k) float64 mean sketch of each cluster, ``ḡ_j`` (algorithm 1, line 4).

    Args:
        sketches: (n, k); or (n,) numbers, for (m,) means.
        labels: (n,) int64, 0 … m − 1, each one in use.
    """
    return group_means(sketches.to(torch.float64), labels, len(cluster_counts(labels)))


def group_means(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(G, …) means of (n, …) ``values`` over each of G ``groups``, 0 for one without any.

    By a product with the (n,) ``group``s' membership matrix: deterministic on every device, unlike
    ``index_add``.
    """
    member = torch.nn.functional.one_hot(group, groups).to(values.dtype)
    return (member / member.sum(dim=0).clamp(min=1)).T @ values


def cluster_spread(
    sketches: Tensor,
    labels: Tensor,
    pseudo_counts: float = 1.5,
    form: Literal["mean", "printed"] = "mean",
) -> Tensor:
    """Spread ``σ_j²`` of each cluster around its mean, shrunk to the pooled spread.

    ``(n_j v_j + ν v) / (n_j + ν)`` with ``v = Σ_j n_j v_j / n``. Shrinkage is ours: a cluster
    of one sequence has ``v_j = 0``, and would draw all weight.

    Args:
        sketches: (n, k).
        labels: (n,) int64, 0 … m − 1, each one in use.
        pseudo_counts: ν ≥ 0, how many sequences the pooled spread counts for; 0 is no shrinkage.
        form: ``mean``: ``v_j`` is the mean of ``‖g_i − ḡ_j‖²`` over the cluster (ours, squared
            gradient units like ``‖ḡ_j‖²``); ``printed``: its variance (the paper's A.6), in
            units of ``‖g‖⁴``.

    Returns:
        (m,) float64, ≥ 0.
    """
    exact = sketches.to(torch.float64)
    counts = cluster_counts(labels)
    # In place: at (512, 1024), copies are what takes the time.
    distance = cluster_means(exact, labels)[labels].sub_(exact).square_().sum(dim=1)
    own = cluster_means(distance, labels)
    if form == "printed":
        own = cluster_means((distance - own[labels]).square(), labels)
    pooled = (counts * own).sum() / len(labels)
    return (counts * own + pseudo_counts * pooled) / (counts + pseudo_counts)


def mutual_information(labels: Tensor, domain: Tensor) -> float:
    """Mutual information of sequences' (n,) clusters and (n,) human domains, in nats.

    From 0 (independent) to the smaller of the two entropies.
    """
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(domain.cpu().numpy(), labels.cpu().numpy()))


def effective_number(weights: Tensor) -> float:
    """Number of domains that count, ``exp(−Σ_j w_j ln w_j)`` of (m,) weights on the simplex.

    From 1 (all weight on one) to m (uniform).

    >>> round(effective_number(torch.tensor([0.5, 0.5, 0.0])), 6)
    2.0
    """
    return float(torch.special.entr(weights.to(torch.float64)).sum().exp())
