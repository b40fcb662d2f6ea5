"""Random problems of both solvers."""

import torch

from dograph.graph.domain_graph import affinity, edge_rows
from dograph.graph.kernel import gradient_kernel, squared_distances
from dograph.graph.schedule_solver import ScheduleProblem

ALL_TERMS = {"laplacian": True, "edges": True, "anchor": True}


def instance(m, k=24, seed=0, spread=1.0):
    """Kernel, spread and counts of m domains whose means differ tenfold in length and span k."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(m, k, generator=generator, dtype=torch.float64)
    means *= 10 ** torch.rand(m, 1, generator=generator, dtype=torch.float64)
    K = gradient_kernel(means)
    sigma = spread * K.trace() / m * torch.rand(m, generator=generator, dtype=torch.float64)
    return K, sigma, torch.randint(1, 9, (m,), generator=generator)


def schedule(S, seed, neighbours=3):
    """b, R, √L and the prior of a random problem of S sources."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    means = normal(S, 6)
    scale = gradient_kernel(means).diagonal().mean()
    root = edge_rows(affinity(squared_distances(means), neighbours))
    prior = torch.softmax(normal(S) / 2, dim=0)
    return ScheduleProblem(means @ normal(6) / scale, means.T / scale.sqrt(), root, prior)
