"""Exact gradients of the domains' mean losses, by one backward a domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class DomainGradientSums:
    """Sums gradients by domain over micro-batches, and takes their inner products.

    Every domain's sequences go through the model once more, on their own, so that a backward
    costs no more than they do. Holds S × P numbers for P parameters. Parameters and their
    ``.grad`` are left alone.

    Args:
        parameters: those to differentiate by; frozen ones are left out.
        domains: number S of domains.
    """

    def __init__(self, parameters: Iterable[Tensor], domains: int) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.domains = domains
        self._sums: Tensor | None = None
        self._counts = torch.zeros(domains)

    def add(self, domain: Tensor, sequence_losses: Callable[[Tensor], Tensor]) -> None:
        """Adds a micro-batch.

        Args:
            domain: (B,) int64, index of each sequence's domain.
            sequence_losses: from (b,) row numbers of the micro-batch to their (b,) mean token
                losses, with a graph of their own.
        """
        if self._sums is None:
            size = sum(parameter.numel() for parameter in self.parameters)
            # float32 also where Lightning has made bf16 the default type.
            exact, device = torch.float32, domain.device
            self._sums = torch.zeros(self.domains, size, device=device, dtype=exact)
            self._counts = torch.zeros(self.domains, device=device, dtype=exact)
        for index in domain.unique().tolist():
            rows = (domain == index).nonzero().flatten()
            loss = sequence_losses(rows).sum()
            parts = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            self._sums[index] += torch.cat([part.flatten() for part in parts])
            self._counts[index] += len(rows)

    def take_kernel(self, total: Callable[[Tensor], Tensor] = lambda values: values) -> Tensor:
        """(S, S) ``⟨G_s, G_t⟩`` of the gradients of mean losses, then starts again.

        Args:
            total: sums a tensor over ranks.

        Returns:
            float32; rows and columns of absent domains are zero.
        """
        assert self._sums is not None
        counts = total(self._counts)
        means = total(self._sums) / counts.clamp(min=1)[:, None]
        self._sums = None
        return means @ means.T
