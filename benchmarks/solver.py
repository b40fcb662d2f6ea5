"""How long the differentiable solver takes: ``python -m benchmarks.solver``.

Median milliseconds of a solve without gradients, and of a solve with gradients followed by a
backward, by number of domains.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from dograph.graph.solver import GraphSolver
from dograph.signals.kernel import gradient_kernel

LARGEST_WITH_EDGES = 32  # edges bound all m(m−1)/2 pairs
TERMS = {
    "as published": {},
    "anchor, Laplacian": {"anchor": True, "laplacian": True},
    "all, with edges": {"anchor": True, "laplacian": True, "edges": True},
}


def milliseconds(action: Callable[[], object], repeats: int) -> float:
    """Median time of an action that has been warmed up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(m: int, terms: dict[str, bool], repeats: int) -> tuple[float, float, float]:
    """(solve, solve with gradients, backward) milliseconds for m domains."""
    generator = torch.Generator().manual_seed(m)
    means = torch.randn(m, 1024, generator=generator, dtype=torch.float64)
    kernel, spread = gradient_kernel(means), 1024 * torch.rand(m, generator=generator)
    counts, solver = torch.ones(m), GraphSolver(**terms)
    moving = kernel.clone().requires_grad_()

    def solve(K: torch.Tensor) -> torch.Tensor:
        solution = solver(K, spread, counts)
        assert solution.ok, solution.status
        return solution.weights

    def backward() -> None:
        solve(moving).square().sum().backward()

    plain = milliseconds(lambda: solve(kernel), repeats)
    forward = milliseconds(lambda: solve(moving), repeats)
    return plain, forward, milliseconds(backward, repeats) - forward


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 11, 32, 64, 128])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    table = Table("domains", "terms", title="Domain weights, median ms")
    for column in ("solve", "solve, gradients kept", "backward"):
        table.add_column(column, justify="right")
    for m in arguments.sizes:
        for name, terms in TERMS.items():
            if terms.get("edges") and m > LARGEST_WITH_EDGES:
                continue
            times = measure(m, terms, arguments.repeats)
            table.add_row(str(m), name, *(f"{value:.2f}" for value in times))
    Console().print(table)


if __name__ == "__main__":
    main()
