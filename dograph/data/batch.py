"""A batch: tokens, domains and documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """B sequences of T + 1 tokens."""

    tokens: Tensor
    """(B, T + 1) int64; inputs are all but the last, targets all but the first."""
    domain: Tensor
    """(B,) int64, each sequence's domain index."""
    documents: Tensor
    """(B, 2) int64, ordinals of the first and last document in each sequence."""

    def to(self, device: torch.device) -> Batch:
        """On a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in vars(self).values()))

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, for faster transfer to a GPU."""
        return Batch(*(part.pin_memory() for part in vars(self).values()))

    def __reduce__(self) -> tuple[Callable[[Tensor], Batch], tuple[Tensor]]:
        # A loader worker sends each tensor through its own shared memory: send one.
        return _unpacked, (torch.cat([self.tokens, self.domain[:, None], self.documents], dim=1),)


def _unpacked(packed: Tensor) -> Batch:
    return Batch(packed[:, :-3], packed[:, -3], packed[:, -2:])
