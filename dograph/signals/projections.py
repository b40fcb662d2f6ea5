"""Random projections that make sketches of a layer's gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from dograph.errors import UserError
from dograph.signals.layers import Factors, LayerCall, factors, weight_of
from dograph.signals.repeated import NotSeparable, sequence_gradients


class Projections:
    """Sketches gradients of the observed layers by Gaussian projections.

    Args:
        layers: the observed layers with factors, by name.
        rank: with ``seed`` and ``fresh``, as in ``SketchSettings``.
        biases: whether vectors (biases, gains of norms) are sketched, too.
        repeated: further layers, which are computed again for each sequence.

    Attributes:
        covered: entries of each parameter whose gradients have been sketched, by its name.
        left_out: why a layer to be repeated is not sketched, by its name.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        rank: int,
        seed: int,
        fresh: bool,
        biases: bool,
        repeated: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.layers = layers
        self.repeated = dict(repeated or {})
        self.covered: dict[str, int] = {}
        self.left_out: dict[str, str] = {}
        self._own: dict[str, dict[str, Tensor]] | None = None
        self._verified: set[str] = set()
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
        if call.repeat is not None:
            return self._sketch_repeated(call, step)
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
        parts = []
        for part in factors(call.module, source, gradient.to(precise) * call.scale):
            if self.biases or part.parameter != "bias":
                self._cover(call.name, call.module.get_parameter(part.parameter), part.parameter)
                parts.append(self._sketch(call, part, step))
        return parts

    def assign(self, called: Collection[str]) -> None:
        """Decides, by the first forward, which layers are repeated for which parameters.

        A layer that another one uses without calling it (a state-space mixer its convolution) has
        its parameters sketched with that one.

        Args:
            called: names of all layers that were called.
        """
        if self._own is not None:
            return
        own: dict[str, dict[str, Tensor]] = {}
        for name, module in {**self.layers, **self.repeated}.items():
            if name in called and name not in self.repeated:
                continue
            place = name
            while place and (place not in called or place not in self.repeated):
                place = place.rpartition(".")[0]
            if not place:
                self.left_out[name] = "it is not called"
                continue
            below = f"{name}.".removeprefix(f"{place}.")
            for parameter, value in module.named_parameters(recurse=False):
                if value.requires_grad and (self.biases or value.dim() >= 2):
                    own.setdefault(place, {})[below + parameter] = value
        self._own = own
        self.repeated = {name: module for name, module in self.repeated.items() if name in own}

    def is_verified(self, name: str) -> bool:
        """Whether a repeated layer's outputs have been compared with those of its call."""
        return name in self._verified

    def _sketch_repeated(self, call: LayerCall, step: int) -> list[tuple[str, Tensor]]:
        """The same for a layer that is computed again; none where that is impossible."""
        assert call.repeat is not None and self._own is not None
        parameters = self._own.get(call.name)
        if not parameters or call.name in self.left_out:
            return []
        parts: dict[str, list[Tensor]] = {}
        try:
            verify = not self.is_verified(call.name)
            for some in sequence_gradients(call.module, call.repeat, parameters, verify):
                for name, gradient in some.items():
                    whole = parameters[name], gradient, step
                    key, sketch = self._sketch_whole(f"{call.name}.{name}", *whole)
                    parts.setdefault(key, []).append(sketch)
        except NotSeparable as reason:
            self.left_out[call.name] = str(reason)
            return []
        self._verified.add(call.name)
        for name, parameter in parameters.items():
            self._cover(f"{call.name}.{name}".rpartition(".")[0], parameter, name)
        return [(key, torch.cat(each)) for key, each in parts.items()]

    def _sketch_whole(
        self, name: str, parameter: Tensor, gradient: Tensor, step: int
    ) -> tuple[str, Tensor]:
        """A parameter's key, and the (b, …) sketch of its gradients, which are (b, …, n) whole."""
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        layer, _, own = name.rpartition(".")
        key = self._owner.get(layer, name) if own == "weight" and parameter.dim() > 1 else name
        with torch.autocast(gradient.device.type, enabled=False):
            if parameter.dim() == 1:
                return key, self._reduce(gradient, key, step, self.rank**2)
            narrow = self._reduce(gradient.flatten(1, -2), f"{key}/in", step, self.rank)
            both = self._reduce(narrow.transpose(1, 2), f"{key}/out", step, self.rank)
            return key, both.flatten(1)

    def _cover(self, layer: str, parameter: Tensor, name: str) -> None:
        own = name.rpartition(".")[2]
        owner = self._owner.get(layer, layer) if own == "weight" else layer
        self.covered[f"{owner}.{own}"] = parameter.numel()

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
