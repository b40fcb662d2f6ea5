"""Random projections that make sketches of a layer's gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from dograph.errors import UserError
from dograph.signals.layers import Factors, LayerCall, factors, weight_of


class Projections:
    """Sketches gradients of the observed layers by Gaussian projections.

    Args:
        layers: the observed layers by name.
        rank: with ``seed`` and ``fresh``, as in ``SketchSettings``.
        biases: whether biases are sketched, too.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], rank: int, seed: int, fresh: bool, biases: bool
    ) -> None:
        self.layers = layers
        self.rank, self.seed, self.fresh, self.biases = rank, seed, fresh, biases
        self._kept: dict[tuple[str, int, torch.device, torch.dtype], Tensor] = {}
        # Layers that share a parameter (an embedding and the output layer) share its sketch.
        # By name, since sharding puts other parameters in the place of these.
        first: dict[int, str] = {}
        self._owner = {
            name: first.setdefault(id(weight_of(module)), name) for name, module in layers.items()
        }

    def sketch(
        self, call: LayerCall, gradient: Tensor | None, batch: int, step: int
    ) -> list[tuple[str, Tensor]]:
        """A key and a (B, …) sketch of its gradients for each parameter of an observed layer.

        None for positions that are added to no token.

        Args:
            call: of the layer.
            gradient: (B, …) of the summed losses by its output.
            batch: B.
            step: optimiser step, the seed of fresh projections.
        """
        if gradient is None:
            raise UserError(
                f"the output of `{call.name}` has no part in the losses: they must come from the "
                "model's recorded forward, without torch.compile around the observed matrices; "
                "a matrix that the model leaves unused must not be in `blocks`"
            )
        source = call.source
        if len(source) != batch:
            if isinstance(call.module, nn.Embedding):  # of positions that are added to no token
                return []
            raise UserError(
                f"`{call.name}` saw an input of shape {tuple(source.shape)} in a batch of {batch} "
                "sequences: only matrices with the batch as first dimension can be sketched"
            )
        precise = torch.promote_types(gradient.dtype, torch.float32)
        source = source.to(precise) if source.is_floating_point() else source
        return [
            self._sketch(call, part, step)
            for part in factors(call.module, source, gradient.to(precise))
            if self.biases or part.parameter != "bias"
        ]

    def draw(self, side: str, width: int, rank: int, step: int | None) -> Tensor:
        """(n, r) Gaussian of variance 1/r; drawn on the CPU, so equal on every device."""
        text = f"{self.seed}/{step}/{side}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
        return gaussian(width, rank, seed)

    def _sketch(self, call: LayerCall, part: Factors, step: int) -> tuple[str, Tensor]:
        """A parameter's key, and the (B, …) sketch of its gradients."""
        if part.inputs is None:
            key = f"{call.name}/{part.parameter}"
            return key, self._reduce(part.outputs, key, step, self.rank**2)
        weight = weight_of(call.module)
        owner = self._owner[call.name]
        left = self._reduce(part.inputs, f"{owner}/in", step, self.rank)
        if part.outputs.is_floating_point():
            right = self._reduce(part.outputs, f"{owner}/out", step, self.rank)
        else:  # ids stand for unit vectors, which a projection takes to its rows
            ids, width = part.outputs, len(weight)
            projection = self._side(f"{owner}/out", width, left, step, self.rank)
            rows = functional.one_hot(ids, width) if projection is None else projection[ids]
            right = rows.to(left)
        return owner, torch.einsum("btr,bts->brs", left, right).flatten(1)

    def _reduce(self, features: Tensor, side: str, step: int, rank: int) -> Tensor:
        """(…, n) features as (…, r), or as they are where n ≤ r."""
        projection = self._side(side, features.shape[-1], features, step, rank)
        return features if projection is None else features @ projection

    def _side(self, side: str, width: int, like: Tensor, step: int, rank: int) -> Tensor | None:
        """(n, r) projection of one side of a matrix, or of a vector; None where n ≤ r."""
        if width <= rank:
            return None
        if self.fresh:
            return self.draw(side, width, rank, step).to(like)
        key = (side, width, like.device, like.dtype)
        if key not in self._kept:
            self._kept[key] = self.draw(side, width, rank, None).to(like)
        return self._kept[key]


def gaussian(width: int, rank: int, seed: int) -> Tensor:
    """(n, r) Gaussian of variance 1/r, which keeps inner products in expectation."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(width, rank, generator=generator) / rank**0.5


def joined(parts: Iterable[tuple[str, Tensor]]) -> Tensor:
    """(B, k) sketches of all parameters side by side.

    A parameter that is used several times in a forward has the sum of its gradients.
    """
    sums: dict[str, Tensor] = {}
    for key, part in parts:
        sums[key] = sums[key] + part if key in sums else part
    return torch.cat(list(sums.values()), dim=1)
