"""How the gradients of sources lie to those of targets, each on sequences of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dograph.signals.domain_gradients import flat_gradient

Sequences = tuple[Tensor, Tensor]
"""(n,) int64 domains of sequences, and their (n, T + 1) tokens."""


@dataclass
class Alignment:
    """Inner products of gradients of mean losses, ``g_s`` of source s and ``h_t`` of target t.

    Zero for a domain that is no source, or no target.

    Attributes:
        products: (S, S) float32 ``⟨g_s, h_t⟩``.
        source_squares: (S,) float32 ``‖g_s‖²``.
        target_squares: (S,) float32 ``‖h_t‖²``.
        target_loss: (S,) float32, mean token loss in nats of target t.
    """

    products: Tensor
    source_squares: Tensor
    target_squares: Tensor
    target_loss: Tensor


def align(
    parameters: Iterable[Tensor],
    sequence_losses: Callable[[Tensor], Tensor],
    sources: Sequences,
    targets: Sequences,
    domains: int,
    at_once: int,
) -> Alignment:
    """The ``Alignment`` of sources and targets; holds one gradient a target, and one more.

    Args:
        parameters: of the model; their ``.grad`` is left alone.
        sequence_losses: from (b, T + 1) tokens to (b,) mean token losses, with their graph.
        sources: sequences of the sources.
        targets: sequences of the targets.
        domains: their number S.
        at_once: most sequences of one forward, ≥ 1.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]

    def gradients(sequences: Sequences) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Index of each domain with sequences, (P,) gradient of its mean loss, and that loss."""
        for index in sequences[0].unique().tolist():
            tokens = sequences[1][sequences[0] == index]
            gradient, mean = torch.zeros(()), torch.zeros(())
            for part in tokens.split(at_once):
                loss = sequence_losses(part).sum() / len(tokens)
                gradient = gradient.to(loss.device) + flat_gradient(loss, trainable)
                mean = mean.to(loss.device) + loss.detach()
            yield index, gradient, mean

    device = sources[1].device
    alignment = Alignment(
        torch.zeros(domains, domains, device=device),
        *(torch.zeros(domains, device=device) for _ in range(3)),
    )
    wanted = {}
    for index, gradient, loss in gradients(targets):
        wanted[index] = gradient
        alignment.target_squares[index], alignment.target_loss[index] = gradient @ gradient, loss
    for index, gradient, _ in gradients(sources):
        alignment.source_squares[index] = gradient @ gradient
        for target, direction in wanted.items():
            alignment.products[index, target] = gradient @ direction
    return alignment
