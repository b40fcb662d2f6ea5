"""Sketches read from a backward that training takes anyway, without changing a bit of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.signals.layers import LayerCall, per_sequence_gradients
from dograph.signals.projections import Projections, joined


class BackwardReader:
    """Projects the output gradients of one forward's layers as the backward brings them.

    For mixers that do not change the loss, so that the weights are known before the backward:
    what arrives is every sequence's own gradient, scaled by its weight. Only the weighted losses
    may be differentiated while it reads.

    Attributes:
        step: optimiser step, the seed of fresh projections.
    """

    def __init__(self, projections: Projections) -> None:
        self.step = 0
        self._projections = projections
        self._calls: list[LayerCall] = []
        self._parts: dict[int, list[tuple[str, Tensor]]] = {}
        self._embedding_gradients: dict[int, Tensor] = {}
        self._armed = False

    def arm(self) -> None:
        """Reads the next backward; earlier ones are ignored."""
        self._armed = True

    def watch(self, call: LayerCall) -> None:
        """Reads the gradient by a call's output when it comes, without keeping the output."""
        place = len(self._calls)
        call.output.register_hook(lambda gradient: self._arrived(place, gradient))
        self._calls.append(call._replace(output=call.output.new_empty(0)))

    def sketch(self, scale: Tensor) -> Tensor:
        """(B, k) sketches of the unweighted losses, once the backward is done.

        Args:
            scale: (B,) > 0, each sequence's factor in the loss that was differentiated.
        """
        gradients = [self._embedding_gradients.get(place) for place in range(len(self._calls))]
        pairs = per_sequence_gradients(self._calls, gradients, len(scale))
        parts: list[tuple[str, Tensor]] = []
        for place, (call, gradient) in enumerate(pairs):
            sketches = self._parts.get(place, [])
            if gradient is not None:
                with torch.no_grad():
                    sketches = self._projections.sketch(call, gradient, len(scale), self.step)
            elif not sketches:
                raise UserError(f"no gradient came to `{call.name}`: it has no part in the loss")
            if any(len(sketch) != len(scale) for _, sketch in sketches):
                raise UserError(
                    f"`{call.name}` has no sequence in its first dimension: only matrices with "
                    "the batch as first dimension can be sketched"
                )
            parts += sketches
        sketch = joined(parts)
        return sketch / scale.to(sketch)[:, None]

    def _arrived(self, place: int, gradient: Tensor) -> None:
        if not self._armed:
            return
        call = self._calls[place]
        if isinstance(call.module, nn.Embedding):  # positions need the tokens' gradient, too
            self._embedding_gradients[place] = gradient
            return
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            self._parts[place] = self._projections.sketch(call, gradient, len(gradient), self.step)
        self._calls[place] = call._replace(source=call.source.new_empty(0))
