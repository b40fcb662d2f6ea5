"""Sums by domain over many batches, and means of training losses between a mixer's updates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ADDED_TOGETHER = 64
"""Batches whose values stay on their device before they are added up, so that no step waits."""


class DomainSums:
    """Sums of a number per sequence, and counts of sequences, over S domains."""

    def __init__(self, domains: int) -> None:
        self._sums = torch.zeros(domains, dtype=torch.float64)
        self._counts = torch.zeros(domains, dtype=torch.int64)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, domain: Tensor, values: Tensor) -> None:
        """Adds (B,) values of sequences, by the (B,) indices of their domains."""
        self._waiting.append((domain, values.detach()))
        if len(self._waiting) == ADDED_TOGETHER:
            self._add_up()

    @property
    def sums(self) -> Tensor:
        """(S,) float64."""
        self._add_up()
        return self._sums

    @property
    def counts(self) -> Tensor:
        """(S,) int64 sequences."""
        self._add_up()
        return self._counts

    def _add_up(self) -> None:
        for domain, values in self._waiting:
            index = domain.cpu()
            self._sums.index_add_(0, index, values.to("cpu", torch.float64))
            self._counts += torch.bincount(index, minlength=len(self._counts))
        self._waiting.clear()

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts."""
        return {"sums": self.sums.clone(), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self._waiting.clear()
        self._sums, self._counts = state["sums"].clone(), state["counts"].clone()


class DomainLosses:
    """Mean losses of S domains since last asked.

    >>> losses = DomainLosses(2)
    >>> losses.add(torch.tensor([0, 0]), torch.tensor([1.0, 3.0]))
    >>> losses.take().tolist()
    [2.0, 2.0]
    """

    def __init__(self, domains: int) -> None:
        self._since = DomainSums(domains)
        self._known = torch.full((domains,), torch.inf, dtype=torch.float64)  # unknown

    def add(self, domain: Tensor, sequence_loss: Tensor) -> None:
        """Adds (B,) mean token losses of sequences and the (B,) indices of their domains."""
        self._since.add(domain, sequence_loss)

    def take(self) -> Tensor:
        """(S,) float64 means in nats, then starts anew.

        A domain that was absent keeps its last mean; one that was never drawn has the mean of the
        others, so that it stands out by nothing.
        """
        counts = self._since.counts
        self._known = torch.where(counts > 0, self._since.sums / counts.clamp(min=1), self._known)
        self._since = DomainSums(len(counts))
        never = self._known.isinf()
        return torch.where(never, self._known[~never].mean(), self._known)

    def state_dict(self) -> dict[str, Any]:
        """Sums, counts and last means."""
        return {**self._since.state_dict(), "known": self._known.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self._since.load_state_dict(state)
        self._known = state["known"].clone()
