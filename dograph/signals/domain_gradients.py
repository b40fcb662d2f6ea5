"""Exact gradients of the domains' mean losses, by one backward a domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


class DomainGradientSums:
    """Sums gradients by domain over micro-batches, and takes their inner products.

    Every domain's sequences go through the model once more, on their own, so that a backward
    costs no more than they do. Holds S × P numbers for P trainable parameters, which, with their
    ``.grad``, are left alone.
    """

    def __init__(self, parameters: Iterable[Tensor], domains: int) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.domains = domains
        self._sums: Tensor | None = None

    def add(self, domain: Tensor, sequence_losses: Callable[[Tensor], Tensor]) -> None:
        """Adds a micro-batch.

        Args:
            domain: (B,) int64.
            sequence_losses: from (b,) rows of it to their mean token losses, with their graph.
        """
        if self._sums is None:
            size = sum(parameter.numel() for parameter in self.parameters)
            # float32 also where Lightning has made bf16 the default type.
            exact, device = torch.float32, domain.device
            self._sums = torch.zeros(self.domains, size, device=device, dtype=exact)
            self._counts = torch.zeros(self.domains, device=device, dtype=exact)
        for index in domain.unique().tolist():
            rows = (domain == index).nonzero().flatten()
            self._sums[index] += self.gradient_of(sequence_losses(rows).sum())
            self._counts[index] += len(rows)

    def gradient_of(self, loss: Tensor) -> Tensor:
        """(P,) gradient of a scalar loss."""
        return flat_gradient(loss, self.parameters)

    def take_kernel(
        self,
        total: Callable[[Tensor], Tensor] = lambda values: values,
        probe: Tensor | None = None,
    ) -> Tensor:
        """(S, S) float32 ``⟨G_s, G_t⟩`` of the gradients of mean losses, then starts again.

        Rows and columns of absent domains are zero.

        Args:
            total: sums a tensor over ranks.
            probe: (P,) a further gradient, the same on every rank. Its products are a last row and
                column: (S + 1, S + 1).
        """
        assert self._sums is not None
        counts = total(self._counts)
        means = total(self._sums) / counts.clamp(min=1)[:, None]
        self._sums = None
        if probe is not None:
            means = torch.cat([means, probe.to(means)[None]])
        return means @ means.T


def flat_gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """(P,) gradient of a scalar loss; zero where a parameter has no part in it."""
    parts = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])
