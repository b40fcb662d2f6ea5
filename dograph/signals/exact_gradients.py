"""Exact gradients of sequences, for tiny models and tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def exact_gradients(losses: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Takes one backward a sequence.

    Args:
        losses: (B,) with their graph, which stays alive.
        parameters: P numbers in all.

    Returns:
        (B, P) detached, float32 (float64 for a float64 model).
    """
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        row = torch.cat([gradient.flatten() for gradient in gradients])
        rows.append(row.to(torch.promote_types(row.dtype, torch.float32)))
    return torch.stack(rows)
