"""One forward of the model, recorded so that its sequences' gradients can be sketched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto

import torch
from torch import Tensor

from dograph.errors import UserError
from dograph.signals.backward_reader import BackwardReader
from dograph.signals.layers import LayerCall, per_sequence_gradients
from dograph.signals.projections import Projections, joined
from dograph.signals.repeated import Repeat
from dograph.signals.shared_backward import SharedBackward, WeightedLoss, weighted_sum
from dograph.signals.shared_region import NotShareable, PartialBackward, SharedRegion


class SketchMode(Enum):
    """Where the gradients of a sketch come from."""

    OWN = auto()
    """A backward of its own, which leaves the training's as it is."""
    SHARED = auto()
    """One backward for sketch and training; changes training's gradients by rounding."""
    READ = auto()
    """The training's own backward, read without changing a bit of it."""


class RecordedForward:
    """Record of one forward, to be sketched; ``SequenceSketcher.record`` makes it.

    Args:
        projections: of the observed layers.
        region: what a shared backward needs. None: sketches take their own.
        mode: as the attribute.
        exact: parameters whose exact gradients take the place of sketches. None: sketches.

    Attributes:
        mode: where the gradients come from; ``OWN`` for exact ones.
    """

    def __init__(
        self,
        projections: Projections,
        region: SharedRegion | None,
        mode: SketchMode,
        exact: Sequence[Tensor] | None = None,
    ) -> None:
        self._projections, self._exact = projections, exact
        self.mode = mode if exact is None else SketchMode.OWN
        self._region = region if self.mode is SketchMode.SHARED else None
        self._inside_region = False
        self._region_input: Tensor | None = None
        self._calls: list[LayerCall] = []
        self._reader: BackwardReader | None = None

    def sketch(self, losses: Tensor, step: int = 0) -> Tensor:
        """Sketches the sequences by a backward of its own.

        Args:
            losses: (B,) mean token loss of each sequence, its graph alive. Call this before the
                training's own backward, which needs no ``retain_graph`` of its own.
            step: optimiser step, the seed of fresh projections.

        Returns:
            (B, k) detached, float32 (float64 for a float64 model), k being the sum of
            ``min(n_in, r) · min(n_out, r)`` over the matrices; (B, P) if ``exact``.
        """
        _check(losses)
        if self._exact is not None:
            return _exact_gradients(losses, self._exact)
        return self._sketch(self._backward(losses), step)

    def sketch_and_share(self, losses: Tensor, step: int = 0) -> tuple[Tensor, WeightedLoss]:
        """Sketches, and tells how training continues the backward that this took.

        Where the model lets no two share a backward, the sketch takes its own and the log says
        why, once.

        Returns:
            The sketches, and what makes ``Σ_i a_i ℓ_i`` of (B,) weights and losses: equal to the
            plain sum, its gradients to rounding.
        """
        if self._region is None:
            return self.sketch(losses, step), weighted_sum
        _check(losses)
        taken = self._backward(losses)
        sketch = self._sketch(taken, step)
        try:
            return sketch, SharedBackward(taken, self._region).loss
        except NotShareable as reason:
            self._region.log_once(reason)
            return sketch, weighted_sum

    def reader(self, step: int = 0) -> BackwardReader:
        """The reader of the training's backward to come, recorded in mode ``READ``."""
        reader, self._reader = self._reader, None
        if reader is None:
            raise UserError(
                "nothing was recorded to read: call `record(SketchMode.READ)`, then the model"
            )
        reader.step = step
        return reader

    def begin(self) -> None:
        """Starts recording: the model's forward begins."""
        self._inside_region = self._region is not None and self._region.first_block is None
        if self.mode is SketchMode.READ:
            self._reader = BackwardReader(self._projections)

    def enter_region(self, hidden: Tensor) -> None:
        """Takes (B, …) the input of the shared region's first block."""
        if self._region is not None:
            self._region_input = hidden if hidden.requires_grad else None
            self._inside_region = True

    def wants(self, name: str) -> bool:
        """Whether calls of a layer belong into the record."""
        observed = name in self._projections.layers or name in self._projections.repeated
        return self._inside_region or observed

    def add(self, call: LayerCall) -> None:
        """Adds a call of a layer."""
        if self._reader is not None:
            self._reader.watch(call)
        else:
            self._calls.append(call)

    def _backward(self, losses: Tensor) -> PartialBackward:
        """Takes the gradients of the summed losses by all outputs, and forgets the calls."""
        calls, region_input = self._calls, self._region_input
        self._calls, self._region_input = [], None
        observed = {*self._projections.layers, *self._projections.repeated}
        if not any(call.name in observed for call in calls):
            raise UserError(
                "nothing was recorded to sketch: call `record()`, then the model itself (not its "
                "parts) with gradients enabled, then sketch once, before its backward"
            )
        # After one output a call, the further ones of layers that have several.
        outputs = [call.output for call in calls]
        if region_input is not None:
            outputs.append(region_input)
        first = len(outputs)
        outputs += [each for call in calls if call.repeat for each in call.repeat.outputs[1:]]
        gradients = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
        by_output, further = gradients[: len(calls)], iter(gradients[first:])
        calls = [
            call
            if call.repeat is None
            else call._replace(repeat=_with_gradients(call, own, further))
            for call, own in zip(calls, by_output, strict=True)
        ]
        return PartialBackward(
            losses=losses,
            calls=calls,
            output_gradients=by_output,
            by_sequence=per_sequence_gradients(calls, by_output, len(losses)),
            region_input=region_input,
            region_gradient=None if region_input is None else gradients[first - 1],
        )

    def _sketch(self, taken: PartialBackward, step: int) -> Tensor:
        batch, projections = len(taken.losses), self._projections
        projections.assign({call.name for call in taken.calls})
        with torch.no_grad(), torch.autocast(taken.losses.device.type, enabled=False):
            return joined(
                part
                for call, gradient in taken.by_sequence
                if call.name in projections.layers or call.name in projections.repeated
                for part in self._projections.sketch(call, gradient, batch, step)
            )


def _with_gradients(
    call: LayerCall, own: Tensor | None, further: Iterator[Tensor | None]
) -> Repeat | None:
    """A repeated layer's record with the gradients by its outputs, the first and the others."""
    if call.repeat is None:
        return None
    others = (next(further) for _ in call.repeat.outputs[1:])
    return call.repeat._replace(gradients=(own, *others))


def _exact_gradients(losses: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """(B, P) gradients of (B,) losses, by one backward a sequence; the graph stays alive."""
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        row = torch.cat([gradient.flatten() for gradient in gradients])
        rows.append(row.to(torch.promote_types(row.dtype, torch.float32)))
    return torch.stack(rows)


def _check(losses: Tensor) -> None:
    if losses.dim() != 1 or not losses.requires_grad:
        raise UserError(
            f"sketch needs one loss a sequence with its graph alive, got shape "
            f"{tuple(losses.shape)} and requires_grad={losses.requires_grad}"
        )
