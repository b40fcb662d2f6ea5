"""A model's observed layers, their calls, and how a sequence's gradient factorises in each."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from dograph.errors import UserError

MATRICES = (nn.Linear, Conv1D)
LAYERS = (*MATRICES, nn.LayerNorm, nn.Embedding)


class Factors(NamedTuple):
    """A parameter's gradient of each sequence: ``Σ_t a_t ⊗ e_t``, or a vector.

    Attributes:
        inputs: (B, T, n_in) a; None for a vector.
        outputs: (B, T, n_out) e, or (B, T) int64 that stand for unit vectors of ``n_out``; for a
            vector (B, n_out), summed over t already.
    """

    parameter: str
    inputs: Tensor | None
    outputs: Tensor


def factors(layer: nn.Module, source: Tensor, gradient: Tensor) -> Iterator[Factors]:
    """Factorises the gradients of a layer's parameters.

    An embedding is the transpose of an output layer (a model may use it as both): its ids take
    the place of output gradients.

    Args:
        layer: one of ``LAYERS``.
        source: its input, batch first.
        gradient: (B, …, n) of the loss by its output.
    """
    batch = len(source)
    outputs = gradient.reshape(batch, -1, gradient.shape[-1])
    if isinstance(layer, nn.Embedding):
        yield Factors("weight", outputs, source.reshape(batch, -1))
        return
    inputs = source.reshape(batch, -1, source.shape[-1])
    if isinstance(layer, nn.LayerNorm):
        normed = functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
        yield Factors("weight", None, (normed * outputs).sum(dim=1))
    else:
        yield Factors("weight", inputs, outputs)
    if getattr(layer, "bias", None) is not None:
        yield Factors("bias", None, outputs.sum(dim=1))


class LayerCall(NamedTuple):
    """One call of a layer in a recorded forward.

    Attributes:
        name: the layer's name in the model.
        module: the layer.
        source: its input, detached.
        output: with its graph.
        version: the output's when the layer returned it; a later one was changed in place.
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


def observed_layers(model: nn.Module, blocks: str | list[str]) -> dict[str, nn.Module]:
    """The trainable layers of ``SketchSettings.blocks`` by name, in the model's order; ≥ 1."""
    if blocks == "model":
        return _trainable(model, "", LAYERS)
    names = [name for name, _ in model.named_modules()]
    if blocks in ("last", "all"):
        stack = transformer_blocks(model)
        last = f"{stack}.{len(model.get_submodule(stack)) - 1}"  # type: ignore[arg-type]
        prefixes = [last if blocks == "last" else stack]
    else:
        prefixes = [blocks] if isinstance(blocks, str) else list(blocks)
    matrices: dict[str, nn.Module] = {}
    for prefix in prefixes:
        if prefix not in names:
            near = difflib.get_close_matches(prefix, names, n=3, cutoff=0.0)
            raise UserError(f"the model has no block `{prefix}`; the nearest are {near}")
        trainable = _trainable(model, prefix, MATRICES)
        if not trainable:
            raise UserError(f"block `{prefix}` has no trainable nn.Linear or Conv1D to sketch")
        matrices |= trainable
    return matrices


def _trainable(
    model: nn.Module, prefix: str, kinds: tuple[type[nn.Module], ...]
) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if (name == prefix or name.startswith(f"{prefix}.") or not prefix)
        and isinstance(module, kinds)
        and isinstance(module.weight, nn.Parameter)  # a layer norm may have none
        and module.weight.requires_grad
    }


def are_positions(ids: Tensor) -> bool:
    """Whether an embedding's ids are positions, the same for all sequences: (1, T), consecutive."""
    return len(ids) == 1 and torch.equal(ids[0], ids[0, 0] + torch.arange(ids.shape[-1]).to(ids))


def transformer_blocks(model: nn.Module) -> str:
    """Name of the list of Transformer blocks: the longest outermost ``nn.ModuleList``.

    That is ``transformer.h`` in GPT-2, ``model.layers`` in Llama.
    """
    lists: dict[str, int] = {}
    for name, module in model.named_modules():
        # A list inside a block (a mixture's experts) may be longer than the list of blocks.
        outermost = not any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and len(module) and outermost:
            lists[name] = len(module)
    if not lists:
        raise UserError(
            "the model has no nn.ModuleList of blocks: name the modules to sketch in `blocks`"
        )
    return max(lists, key=lambda name: lists[name])


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a layer: (n_out, n_in) for Linear, (n_in, n_out) for Conv1D."""
    return module.get_parameter("weight")
