"""A window of recent sketches, and its clusters' share in the sources (ours; docs/method.md)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dograph.errors import check_range


class SketchWindow:
    """The newest sequences' sketches and domains, on the CPU in bfloat16.

    Args:
        capacity: number of sequences it holds, ≥ 1; new ones displace the oldest.

    Attributes:
        domain: (n,) int64.
    """

    def __init__(self, capacity: int) -> None:
        check_range("window", capacity, at_least=1)
        self.capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Removes everything."""
        self._sketches = torch.zeros(0, 0, dtype=torch.bfloat16)
        self.domain = torch.zeros(0, dtype=torch.int64)

    def add(self, sketch: Tensor, domain: Tensor) -> None:
        """Adds (B, k) sketches and the (B,) domains of their sequences."""
        newest = sketch.detach().to("cpu", torch.bfloat16)
        if not len(self):
            self._sketches = self._sketches.new_zeros(0, newest.shape[1])
        self._sketches = torch.cat([self._sketches, newest])[-self.capacity :]
        self.domain = torch.cat([self.domain, domain.cpu()])[-self.capacity :]

    def __len__(self) -> int:
        return len(self.domain)

    @property
    def sketches(self) -> Tensor:
        """(n, k) float32, the oldest first."""
        return self._sketches.float()

    def state_dict(self) -> dict[str, Any]:
        """Sketches and domains."""
        # Clones: a view would take all that it is a view of into the checkpoint.
        return {"sketches": self._sketches.clone(), "domain": self.domain.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self._sketches, self.domain = state["sketches"], state["domain"]


def contingency(labels: Tensor, domain: Tensor, domains: int, pseudo_counts: float = 2.0) -> Tensor:
    """Computes ``P[c|s]``, the share of each cluster among a source's sequences, smoothed.

    ``(n_cs + a n_c/n) / (n_s + a)``: the fewer sequences a source has in the window, the closer
    it is to the mean over all sources.

    Args:
        labels: (n,) int64 clusters 0 … K − 1, each one in use.
        domain: (n,) int64 sources.
        domains: the number S of sources.
        pseudo_counts: a > 0.

    Returns:
        (K, S) float64 > 0; columns sum to 1.
    """
    member = torch.nn.functional.one_hot(labels).double()
    source = torch.nn.functional.one_hot(domain, domains).double()
    counts = member.T @ source
    overall = member.mean(dim=0)
    return (counts + pseudo_counts * overall[:, None]) / (source.sum(dim=0) + pseudo_counts)
