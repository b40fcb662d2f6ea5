"""Calls of layers in a forward, with the gradient of every sequence by their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from dograph.signals.layers import are_positions


class LayerCall(NamedTuple):
    """One call of a layer in a recorded forward.

    Attributes:
        name: the layer's name in the model.
        module: the layer.
        source: its input, detached.
        output: with its graph.
        version: the output's version when the layer returned it; a later version was changed in
            place.
    """

    name: str
    module: nn.Module
    source: Tensor
    output: Tensor
    version: int


def per_sequence_gradients(
    calls: Sequence[LayerCall], gradients: Sequence[Tensor | None], batch: int
) -> list[tuple[LayerCall, Tensor | None]]:
    """Pairs each call with the gradient by its output, split by sequence for positions, too.

    Positional embeddings are the same for all sequences and are added to token embeddings: the
    gradient that arrives at a token's embedding is each sequence's own.
    ``shared_region.check_positions`` tells whether that holds.

    Args:
        calls: in the order of the forward.
        gradients: of the summed losses by each call's output; None for one without a part.
        batch: number of sequences.
    """
    pairs, tokens = [], None
    for call, gradient in zip(calls, gradients, strict=True):
        split, own = call, gradient
        if isinstance(call.module, nn.Embedding):
            if not are_positions(call.source):
                tokens = gradient
            elif tokens is not None and gradient is not None:
                split, own = call._replace(source=call.source.expand(batch, -1)), tokens
        pairs.append((split, own))
    return pairs
