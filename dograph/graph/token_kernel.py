"""Inner products of domains' mean gradients, with every token's row brought to one size (ours)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dograph.signals.batch_signals import TokenGradients

SMALLEST_ROW = 1e-3
"""A row's mean square counts at least this share of all rows' mean: no rare token dominates."""


class TokenKernel:
    """Mean gradients of R domains at V token embeddings, and their kernel.

    Sequences fall into two halves, so that a domain's own product ``⟨g, g⟩`` is that of two
    independent means: without bias, and their difference tells the error. A product of two rows
    ``v`` is divided by the root of their mean square over the domains, as Adam divides a step by
    its second moment's: else a few frequent tokens decide.

    Between two calls of ``close`` sequences count alike; ``close`` then averages the means over
    time, each time brought to one size, since gradients shrink while a model learns.

    Args:
        rows: number R of domains.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._sums: Tensor | None = None
        self._means: Tensor | None = None
        self._counts = torch.zeros(2, self.rows, dtype=torch.float64)
        self._closed = torch.zeros(2, self.rows, dtype=torch.float64)

    @property
    def known(self) -> Tensor:
        """(R,) bool, domains whose means are known."""
        return (self._closed > 0).any(dim=0)

    def add(self, read: TokenGradients, vocab_size: int) -> None:
        """Adds n sequences; ``read.domain`` are their rows."""
        count, rank = len(read.domain), read.gradients.shape[-1]
        if self._sums is None:
            self._sums = read.gradients.new_zeros(2 * self.rows * vocab_size, rank)
        sums = self._sums = self._sums.to(read.gradients.device)
        domain = read.domain.to(sums.device)
        half = read.tokens.sum(dim=1) % 2  # by content: a sequence that repeats stays in its half
        place = ((half * self.rows + domain) * vocab_size)[:, None] + read.tokens
        gradients = read.gradients.flatten(0, 1)
        if sums.device.type == "cpu":
            sums.index_add_(0, place.flatten(), gradients)
        else:  # in one order, so that a resume is exact
            sums.index_put_((place.flatten(),), gradients, accumulate=True)
        ones = torch.ones(count, dtype=torch.float64)
        self._counts.index_put_((half.cpu(), domain.cpu()), ones, accumulate=True)

    def close(self) -> None:
        """Averages the means of what was added since the last call with the earlier ones."""
        if self._sums is None:
            return
        means = torch.zeros_like(self._sums) if self._means is None else self._means
        self._means = means.to(self._sums.device)
        spread, present = (2, self.rows, -1), self._counts > 0
        sums = self._sums.view(spread) / self._counts.clamp(min=1)[:, :, None].to(self._sums)
        size = (sums.square().sum() / max(int(present.sum()), 1)).sqrt().clamp(min=1e-30)
        self._closed += present
        share = (present / self._closed.clamp(min=1))[:, :, None].to(sums)
        self._means.view(spread).mul_(1 - share).add_(sums / size * share)
        self._sums.zero_()
        self._counts.zero_()

    def kernel(self, scaled_by: Tensor) -> tuple[Tensor, Tensor]:
        """(R, R) float64 kernel and its standard error, by two halves; zero where unknown.

        Args:
            scaled_by: (R,) bool, the known domains whose mean square brings rows to one size.
        """
        assert self._means is not None
        rank = self._means.shape[1]
        halves = self._means.view(2, self.rows, -1)
        # A few sequences may all fall into one half: it then stands for both.
        absent = (self._closed == 0)[:, :, None].to(halves.device)
        halves = torch.where(absent, halves.flip(0), halves)
        whole = halves.mean(dim=0)
        size = whole[scaled_by].view(int(scaled_by.sum()), -1, rank).square().mean(dim=(0, 2))
        scale = (size + SMALLEST_ROW * size.mean()).clamp(min=1e-30).rsqrt()
        scale = scale.repeat_interleave(rank)
        products = (whole * scale) @ whole.T
        by_half = torch.stack([(half * scale) @ whole.T for half in halves]).double()
        own = ((halves[0] * scale) * halves[1]).sum(dim=1)
        kernel = (products - torch.diag(products.diagonal()) + torch.diag(own)).double()
        error = (by_half[0] - by_half[1]).abs() / 2
        # Of one half alone nothing tells the error: it may be as large as the product.
        single = (self._closed == 0).any(dim=0).to(kernel.device)
        error = torch.where(single[:, None] | single[None, :], kernel.abs(), error)
        known = (self.known[:, None] & self.known[None, :]).to(kernel.device)
        kernel = torch.where(known, (kernel + kernel.T) / 2, 0.0)
        return kernel.cpu(), torch.where(known, error, 0.0).cpu()

    def state_dict(self) -> dict[str, Any]:
        """Sums, means and counts."""
        tensors = {"sums": self._sums, "means": self._means}
        kept = {key: None if each is None else each.cpu() for key, each in tensors.items()}
        counts = {"counts": self._counts.clone(), "closed": self._closed.clone()}
        return {**kept, **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        kept = [state[key] for key in ("sums", "means")]
        self._sums, self._means = (None if each is None else each.clone() for each in kept)
        self._counts, self._closed = state["counts"].clone(), state["closed"].clone()
