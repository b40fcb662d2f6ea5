"""Sketches read from a backward that training takes anyway, without changing a bit of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.signals.shared_backward import Record, own_gradients

Project = Callable[[str, Tensor, Tensor, int], list[tuple[str, Tensor]]]
"""(layer's name, input, gradient by its output, sequences) to sketches by parameter."""


class BackwardReader:
    """Projects the output gradients of one forward's layers as the backward brings them.

    For mixers whose losses count alike, so that the weights are known before the backward: what
    arrives is every sequence's own gradient, scaled by its weight. What is differentiated must be
    the weighted losses alone.

    Args:
        project: makes a layer's sketches.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._records: list[Record] = []
        self._parts: dict[int, list[tuple[str, Tensor]]] = {}
        self._of_embeddings: dict[int, Tensor] = {}
        self._armed = False

    def arm(self) -> None:
        """Reads the next backward; what was differentiated before it is none of its business."""
        self._armed = True

    def watch(self, record: Record) -> None:
        """Reads the gradient by a layer's output, when it comes; the output itself is let go."""
        place = len(self._records)
        record.output.register_hook(lambda gradient: self._arrived(place, gradient))
        self._records.append(record._replace(output=record.output.new_empty(0)))

    def sketch(self, scale: Tensor) -> Tensor:
        """(B, k) sketches of the unweighted losses, once the backward is done.

        Args:
            scale: (B,) > 0, how each sequence's mean loss counted in what was differentiated.

        Raises:
            UserError: if no backward came, or a layer has no sequence in its first dimension.
        """
        gradients = [self._of_embeddings.get(place) for place in range(len(self._records))]
        own = own_gradients(self._records, gradients, len(scale))
        parts: dict[str, Tensor] = {}
        for place, (record, gradient) in enumerate(own):
            found = self._parts.get(place, [])
            if gradient is not None:
                with torch.no_grad():
                    found = self._project(record.name, record.source, gradient, len(scale))
            elif not found:
                raise UserError(f"no gradient came to `{record.name}`: it has no part in the loss")
            if any(len(part) != len(scale) for _, part in found):
                raise UserError(
                    f"`{record.name}` has no sequence in its first dimension: only matrices with "
                    "the batch as first dimension can be sketched"
                )
            for key, part in found:
                parts[key] = parts[key] + part if key in parts else part
        joined = torch.cat(list(parts.values()), dim=1)
        return joined / scale.to(joined)[:, None]

    def _arrived(self, place: int, gradient: Tensor) -> None:
        if not self._armed:
            return
        record = self._records[place]
        if isinstance(record.module, nn.Embedding):  # positions need the tokens' gradient, too
            self._of_embeddings[place] = gradient
            return
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            self._parts[place] = self._project(record.name, record.source, gradient, len(gradient))
        self._records[place] = record._replace(source=record.source.new_empty(0))
