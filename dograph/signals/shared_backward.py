"""One backward for both the sketches and the weighted step (ours; method 1.4).

Gradients of different sequences never mix. So one backward of the unweighted losses, down to the
input of the first sketched block, yields the output gradients of every sequence. These are scaled
by the sequences' weights; the parameters above get theirs from them, and the backward goes on.
(The book-keeping is known from differentially private training: Bu et al. 2023, arXiv 2210.00038.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dograph.signals.layers import MATRICES, factors, of_positions, transformer_blocks

BY_FACTORS = (*MATRICES, nn.Embedding)
"""Layers whose parameters may be shared with others; those of the rest get theirs from autograd."""


class Record(NamedTuple):
    """One call of a layer in the latest forward.

    Attributes:
        name: of the layer in the model.
        module: the layer.
        source: its input, detached.
        output: with its graph.
        version: of the output when the layer returned it; a later one was changed in place.
    """

    name: str
    module: nn.Module
    source: Tensor
    output: Tensor
    version: int


class Above(NamedTuple):
    """The part of a model that one backward shares with the sketches.

    Attributes:
        start: block whose input is the part's lower end. None: the part is the whole model.
        layers: everything in the part that has parameters of its own, by name.
    """

    start: nn.Module | None
    layers: dict[str, nn.Module]


def part_above(model: nn.Module, blocks: str | list[str]) -> Above | None:
    """What lies at and above the first sketched block; None where blocks are named one by one.

    Args:
        model: in training.
        blocks: as in ``SketchSettings``.
    """
    if not isinstance(blocks, str) or blocks not in ("last", "all", "model"):
        return None
    stack, start, below = "", None, set()
    if blocks != "model":
        stack = transformer_blocks(model)
        children = dict(model.get_submodule(stack).named_children())
        first = list(children)[-1 if blocks == "last" else 0]
        start = children[first]
        below = {f"{stack}.{name}" for name in list(children)[: list(children).index(first)]}
    layers = {
        name: module
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        and not any(name == block or name.startswith(f"{block}.") for block in below)
    }
    return Above(start, layers)


def own_gradients(
    records: Sequence[Record], gradients: Sequence[Tensor | None], batch: int
) -> list[tuple[Record, Tensor | None]]:
    """Each record with the gradient by its output, those of positions per sequence, too.

    Positional embeddings are alike for all sequences and added to token embeddings: what arrives
    at a token's is each sequence's own. See ``check_positions``.

    Args:
        records: in the order of the forward.
        gradients: of the summed losses by each record's output; None for one without a part.
        batch: number of sequences.
    """
    found, tokens = [], None
    for record, gradient in zip(records, gradients, strict=True):
        of_record = record
        if isinstance(record.module, nn.Embedding):
            if not of_positions(record.source):
                tokens = gradient
            elif tokens is not None and gradient is not None:
                of_record = record._replace(source=record.source.expand(batch, -1))
                gradient = tokens  # noqa: PLW2901
        found.append((of_record, gradient))
    return found


def check_positions(records: Sequence[Record], gradients: Sequence[Tensor | None]) -> None:
    """Raises NotShareable unless positions are added to tokens as they are."""
    tokens = None
    for record, gradient in zip(records, gradients, strict=True):
        if gradient is None or not isinstance(record.module, nn.Embedding):
            continue
        if not of_positions(record.source):
            tokens = gradient
        elif tokens is None or not _alike(tokens.sum(dim=0), gradient[0]):
            raise NotShareable(f"`{record.name}` is not added to tokens as it is")


def _alike(first: Tensor, second: Tensor) -> bool:
    """To the rounding of sums in half precision; another factor or place is far off."""
    return bool((first - second).norm() <= 0.05 * second.norm())


class SharedBackward:
    """The rest of a backward whose upper part has been taken already.

    Args:
        losses: (B,) with their graph.
        records: of all layers above, with every sequence's own gradient by their outputs.
        below: input of the part, with its graph. None: the part is the whole model.
        below_gradient: of the summed losses by it.

    Raises:
        NotShareable: where the parameters' gradients cannot be told from the records.
    """

    def __init__(
        self,
        losses: Tensor,
        records: Sequence[tuple[Record, Tensor | None]],
        below: Tensor | None,
        below_gradient: Tensor | None,
    ) -> None:
        self.records = _checked(records, len(losses))
        self.below, self.below_gradient = below, below_gradient
        self.parameters = _own_parameters([record for record, _ in self.records])
        if below is not None and len(below) != len(losses):
            raise NotShareable("the blocks' input has no sequence in its first dimension")
        uses = Counter(
            id(parameter)
            for record, _ in self.records
            for parameter in record.module.parameters(recurse=False)
            if parameter.requires_grad
        )
        reached = _reached(losses, below)
        # Fewer uses than records are the cast that autocast makes once of a shared parameter.
        if reached.keys() != uses.keys() or any(reached[key] > uses[key] for key in uses):
            raise NotShareable("parameters are used beside the layers that own them")

    def loss(self, weights: Tensor, losses: Tensor) -> Tensor:
        """``Σ_i a_i ℓ_i``, whose backward goes on where the sketches' has ended.

        Args:
            weights: (B,) a, detached.
            losses: (B,) ℓ.

        Returns:
            A scalar with the gradients of ``(weights * losses).sum()``, to rounding. Its backward
            can be taken once.
        """
        value = (weights * losses.detach()).sum()
        inputs = [*([] if self.below is None else [self.below]), *self.parameters]
        total: Tensor = _Continue.apply(value, self, weights, *inputs)
        return total

    def gradients(self, weights: Tensor) -> list[Tensor]:
        """Of the weighted losses: by the part's input, if it has one, then by its parameters."""
        sums: dict[int, Tensor] = {}
        for record, gradient in self.records:
            for parameter, part in _weighted(record, gradient, weights):
                known = sums.get(id(parameter))
                sums[id(parameter)] = part if known is None else known + part
        found = [sums[id(parameter)].to(parameter.dtype) for parameter in self.parameters]
        if self.below_gradient is None:
            return found
        return [self.below_gradient * _along(weights, self.below_gradient), *found]


class NotShareable(Exception):  # noqa: N818  (no error: the plain way serves)
    """A model, or a forward of it, whose backward has to be taken twice; says why."""


class _Continue(torch.autograd.Function):
    """Hands out what a ``SharedBackward`` computes as the gradients of its loss."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, shared: SharedBackward, weights: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.shared, ctx.weights = shared, weights
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            found = ctx.shared.gradients(ctx.weights * gradient)
        ctx.shared = None  # lets go of the logits' gradient
        return None, None, None, *found


def _checked(
    records: Sequence[tuple[Record, Tensor | None]], batch: int
) -> list[tuple[Record, Tensor]]:
    """The records, if all that is needed of them is there."""
    found = []
    for record, gradient in records:
        if gradient is None:
            raise NotShareable(f"the output of `{record.name}` has no part in the losses")
        if record.output._version != record.version:
            raise NotShareable(f"the output of `{record.name}` is changed in place")
        if len(record.source) != batch or len(gradient) != batch:
            raise NotShareable(f"`{record.name}` has no sequence in its first dimension")
        # Only the others' outputs are needed again: to hold on to the logits would be dear.
        by_factors = type(record.module) in BY_FACTORS
        kept = record._replace(output=gradient.new_empty(0)) if by_factors else record
        found.append((kept, gradient))
    others = [r for r, _ in found if type(r.module) not in BY_FACTORS]
    owners = [id(p) for r, _ in found for p in r.module.parameters(recurse=False)]
    for record in others:
        if any(owners.count(id(p)) > 1 for p in record.module.parameters(recurse=False)):
            raise NotShareable(f"`{record.name}` shares a parameter, or is called twice")
    return found


def _own_parameters(records: Sequence[Record]) -> list[nn.Parameter]:
    """Trainable parameters of the records' layers, each once."""
    parameters = (
        parameter for record in records for parameter in record.module.parameters(recurse=False)
    )
    return list({id(p): p for p in parameters if p.requires_grad}.values())


def _reached(losses: Tensor, below: Tensor | None) -> Counter[int]:
    """Uses of the parameters, by id, that the losses depend on other than through ``below``."""
    end = None if below is None else below.grad_fn
    found: Counter[int] = Counter()
    waiting, known = [losses.grad_fn], {losses.grad_fn}
    while waiting:
        node: Any = waiting.pop()
        for following, output in node.next_functions:
            if hasattr(following, "variable"):
                found[id(following.variable)] += 1
            if following is end and end is not None:
                if below is not None and output != below.output_nr:
                    raise NotShareable("the blocks' input is one of several results")
            elif following is not None and following not in known:
                known.add(following)
                waiting.append(following)
    return found


def _weighted(
    record: Record, gradient: Tensor, weights: Tensor
) -> list[tuple[nn.Parameter, Tensor]]:
    """Each trainable parameter of a layer with ``Σ_i a_i`` times its gradient of sequence i."""
    module = record.module
    own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
    if type(module) not in BY_FACTORS:
        wanted = list(own.values())
        with torch.enable_grad():
            scaled = gradient * _along(weights, gradient)
            found = torch.autograd.grad(record.output, wanted, scaled, retain_graph=True)
        return list(zip(wanted, found, strict=True))
    source = record.source
    source = source.to(gradient.dtype) if source.is_floating_point() else source
    parts = []
    for part in factors(module, source, gradient):
        if part.parameter not in own:
            continue
        if part.inputs is None:  # a bias
            value = weights.to(part.outputs.dtype) @ part.outputs
        elif isinstance(module, nn.Embedding):
            value = _of_embedding(module, part.outputs, part.inputs, weights)
        else:
            value = _of_matrix(module, part.inputs, part.outputs, weights)
        parts.append((own[part.parameter], value))
    return parts


def _of_matrix(module: nn.Module, inputs: Tensor, outputs: Tensor, weights: Tensor) -> Tensor:
    """``Σ_i a_i Σ_t a_it ⊗ e_it`` as one product; the narrower side is scaled."""
    assert isinstance(module, MATRICES)
    if inputs.shape[-1] <= outputs.shape[-1]:
        inputs = inputs * _along(weights, inputs)
    else:
        outputs = outputs * _along(weights, outputs)
    left, right = inputs.flatten(0, 1), outputs.flatten(0, 1)
    return right.T @ left if isinstance(module, nn.Linear) else left.T @ right


def _of_embedding(module: nn.Embedding, ids: Tensor, gradient: Tensor, weights: Tensor) -> Tensor:
    """(V, n) gradient of an embedding; 0 for its padding, as in its own backward."""
    rows = (gradient * _along(weights, gradient)).flatten(0, 1)
    padding = -1 if module.padding_idx is None else module.padding_idx
    found: Tensor = torch.ops.aten.embedding_dense_backward(
        rows, ids.flatten(), module.num_embeddings, padding, False
    )
    return found


def _along(weights: Tensor, values: Tensor) -> Tensor:
    """(B, 1, …) weights that multiply (B, …) values, in their type."""
    return weights.to(values.dtype).reshape(-1, *(1 for _ in values.shape[1:]))
