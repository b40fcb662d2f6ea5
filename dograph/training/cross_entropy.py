"""Cross-entropy of every token in little memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config as autograd_config
from torch.nn import functional

AT_ONCE = {"cpu": 2**17}
"""Logits that are worked on together, by device: what stays in a core's cache."""
AT_ONCE_ELSEWHERE = 2**26


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every token, ``logsumexp(z) − z_target``.

    Equal to ``torch.nn.functional.cross_entropy(..., reduction="none")`` in float32 to rounding.
    That holds up to five tensors of the logits' size: float32 logits, their log-softmax, and in
    the backward a gradient of mostly zeros and two results. This one holds the logits and, in the
    backward, their gradient; what lies between is made and used piece by piece.

    Args:
        logits: (B, T, V), any floating type.
        targets: (B, T) int64 in [0, V).

    Returns:
        (B, T) nats, float32 (float64 for float64 logits); differentiable once, in the logits.
    """
    flat: Tensor = _TokenLosses.apply(logits.flatten(0, 1), targets.flatten())
    return flat.view(targets.shape)


@cache
def compiled_token_losses() -> Callable[[Tensor, Tensor], Tensor]:
    """``token_losses``, compiled: forward and backward read the logits once each.

    Its graph may be differentiated twice, as gradients of sequences are before training's own.
    """
    autograd_config.donated_buffer = False
    return torch.compile(_plain_token_losses)


def _plain_token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    exact = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(exact, targets.flatten(), reduction="none")
    return losses.view(targets.shape)


class _TokenLosses(torch.autograd.Function):
    """(N, V) logits and (N,) targets to (N,) losses, some rows at a time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        pieces = logits.split(_rows(logits))
        normaliser = torch.cat([piece.to(exact).logsumexp(dim=1) for piece in pieces])
        ctx.save_for_backward(logits, targets, normaliser)
        return normaliser - logits.gather(1, targets[:, None])[:, 0].to(exact)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, targets, normaliser = ctx.saved_tensors
        result, rows = torch.empty_like(logits), _rows(logits)
        numbers = torch.arange(rows, device=logits.device)
        for start in range(0, len(logits), rows):
            piece = slice(start, start + rows)
            probability = (logits[piece].to(normaliser.dtype) - normaliser[piece, None]).exp_()
            probability[numbers[: len(probability)], targets[piece]] -= 1
            torch.mul(probability, gradient[piece, None], out=result[piece])
        return result, None


def _rows(logits: Tensor) -> int:
    """How many rows are worked on together."""
    most = AT_ONCE.get(logits.device.type, AT_ONCE_ELSEWHERE)
    return min(max(most // logits.shape[1], 1), max(len(logits), 1))
