"""Sketches read from a backward that training takes anyway, without changing a bit of it."""

from __future__ import annotations

from functools import partial

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
        self._kept_gradients: dict[tuple[int, int], Tensor] = {}
        self._armed = False

    def arm(self) -> None:
        """Reads the next backward; earlier ones are ignored."""
        self._armed = True

    def watch(self, call: LayerCall) -> None:
        """Reads the gradient by a call's outputs when it comes, without keeping the outputs.

        Those of a layer that is repeated are kept once, to be compared.
        """
        place, repeat = len(self._calls), call.repeat
        outputs = (call.output,) if repeat is None else repeat.outputs
        for number, output in enumerate(outputs):
            output.register_hook(partial(self._arrived, place, number))
        if repeat is not None:
            seen = self._projections.is_verified(call.name)
            kept = [o.new_empty(0) if seen else o.detach() for o in outputs]
            repeat = repeat._replace(outputs=tuple(kept))
        self._calls.append(call._replace(output=call.output.new_empty(0), repeat=repeat))

    def sketch(self, scale: Tensor) -> Tensor:
        """(B, k) sketches of the unweighted losses, once the backward is done.

        Args:
            scale: (B,) > 0, each sequence's factor in the loss that was differentiated.
        """
        self._projections.assign({call.name for call in self._calls})
        gradients = [self._kept_gradients.get((place, 0)) for place in range(len(self._calls))]
        calls = [self._with_gradients(*each) for each in enumerate(self._calls)]
        pairs = per_sequence_gradients(calls, gradients, len(scale))
        parts: list[tuple[str, Tensor]] = []
        for place, (call, gradient) in enumerate(pairs):
            sketches = self._parts.get(place, [])
            if gradient is not None or call.repeat is not None:
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

    def _with_gradients(self, place: int, call: LayerCall) -> LayerCall:
        """A call with the gradients by all its outputs, if it is to be repeated."""
        if call.repeat is None:
            return call
        count = len(call.repeat.outputs)
        gradients = tuple(self._kept_gradients.get((place, number)) for number in range(count))
        return call._replace(repeat=call.repeat._replace(gradients=gradients))

    def _arrived(self, place: int, number: int, gradient: Tensor) -> None:
        if not self._armed:
            return
        call = self._calls[place]
        # Positions need the tokens' gradient, too; what is repeated needs all of its outputs'.
        if isinstance(call.module, nn.Embedding) or call.repeat is not None:
            self._kept_gradients[place, number] = gradient
            return
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            batch = len(call.source)
            self._parts[place] = self._projections.sketch(call, gradient, batch, self.step)
        self._calls[place] = call._replace(source=call.source.new_empty(0))
