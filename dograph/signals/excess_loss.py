"""DoReMi's clipped excess loss (Xie et al. 2023, arXiv 2305.10429, Algorithm 1)."""

from __future__ import annotations

from torch import Tensor


def clipped_excess(token_losses: Tensor, reference_losses: Tensor) -> Tensor:
    """(B,) mean over tokens of ``max(ℓ_θ − ℓ_reference, 0)``: tokens are clipped one by one.

    Args:
        token_losses: (B, T) of the model in training, nats.
        reference_losses: (B, T) of the frozen reference model, nats.

    >>> import torch
    >>> clipped_excess(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    tensor([1.])
    """
    return (token_losses - reference_losses).clamp(min=0).mean(dim=1)
