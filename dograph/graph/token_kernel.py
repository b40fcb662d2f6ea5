"""Inner products of domains' mean gradients, with every token's row brought to one size (ours)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dograph.signals.batch_signals import TokenGradients

SMALLEST_ROW = 1e-3
"""A row's mean square counts at least this share of all rows' mean, so that no rare token rules."""


class TokenKernel:
    """Mean gradients of R domains at V token embeddings, and their kernel.

    Sequences fall into two halves, so that a domain's own product ``⟨g, g⟩`` is that of two
    independent means: without bias, and their difference tells the error. A row ``v`` is divided
    by the root of its mean square over the domains, as Adam divides by its second moment: else a
    few frequent tokens decide.

    Args:
        rows: number R of domains.
        memory: in [0, 1), what ``forget`` leaves of what was added before.
    """

    def __init__(self, rows: int, memory: float) -> None:
        self.rows, self.memory = rows, memory
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._sums: Tensor | None = None
        self._counts = torch.zeros(2, self.rows, dtype=torch.float64)
        self._added = 0

    @property
    def known(self) -> Tensor:
        """(R,) bool, domains with sequences in both halves."""
        return (self._counts > 0).all(dim=0)

    @property
    def sequences(self) -> Tensor:
        """(R,) float64 sequences of each domain, those long added counting less."""
        return self._counts.sum(dim=0)

    def add(self, read: TokenGradients, vocab_size: int) -> None:
        """Adds n sequences; ``read.domain`` are their rows."""
        count, rank = len(read.domain), read.gradients.shape[-1]
        if self._sums is None:
            self._sums = read.gradients.new_zeros(2 * self.rows * vocab_size, rank)
        sums = self._sums = self._sums.to(read.gradients.device)
        domain = read.domain.to(sums.device)
        half = (torch.arange(count, device=sums.device) + self._added) % 2
        place = ((half * self.rows + domain) * vocab_size)[:, None] + read.tokens
        gradients = read.gradients.flatten(0, 1)
        if sums.device.type == "cpu":
            sums.index_add_(0, place.flatten(), gradients)
        else:  # in one order, so that a resume is exact
            sums.index_put_((place.flatten(),), gradients, accumulate=True)
        self._counts.index_put_((half.cpu(), domain.cpu()), _ones(count), accumulate=True)
        self._added += 1

    def forget(self) -> None:
        """Lets what was added so far count ``memory`` times as much as what comes."""
        if self._sums is not None:
            self._sums *= self.memory
        self._counts *= self.memory

    def kernel(self, scaled_by: Tensor) -> tuple[Tensor, Tensor]:
        """(R, R) float64 kernel and its standard error, by two halves; zero where unknown.

        Args:
            scaled_by: (R,) bool, the known domains whose mean square brings rows to one size.
        """
        assert self._sums is not None
        counts = self._counts.to(self._sums)[:, :, None]
        sums = self._sums.view(2, self.rows, -1)
        halves, whole = sums / counts.clamp(min=1e-30), sums.sum(0) / counts.sum(0).clamp(min=1e-30)
        rows = whole[scaled_by].view(int(scaled_by.sum()), -1, self._sums.shape[1])
        size = rows.square().mean(dim=(0, 2))
        scale = (size + SMALLEST_ROW * size.mean()).clamp(min=1e-30).rsqrt()
        scale = scale.repeat_interleave(self._sums.shape[1])
        products = (whole * scale) @ whole.T
        by_half = torch.stack([(half * scale) @ whole.T for half in halves]).double()
        own = ((halves[0] * scale) * halves[1]).sum(dim=1)
        kernel = (products - torch.diag(products.diagonal()) + torch.diag(own)).double()
        error = (by_half[0] - by_half[1]).abs() / 2
        known = (self.known[:, None] & self.known[None, :]).to(kernel.device)
        kernel = torch.where(known, (kernel + kernel.T) / 2, 0.0)
        return kernel.cpu(), torch.where(known, error, 0.0).cpu()

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts."""
        sums = None if self._sums is None else self._sums.cpu()
        return {"sums": sums, "counts": self._counts.clone(), "added": self._added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        sums = state["sums"]
        self._sums = None if sums is None else sums.clone()
        self._counts, self._added = state["counts"].clone(), int(state["added"])


def _ones(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.float64)
