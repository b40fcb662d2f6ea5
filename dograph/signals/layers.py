"""A model's observed layers, their calls, and how a sequence's gradient factorises in each."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from dograph.errors import UserError
from dograph.signals.repeated import Repeat

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
        ids = source.reshape(batch, -1)
        if layer.padding_idx is not None:  # whose row has no gradient
            outputs = outputs.masked_fill((ids == layer.padding_idx)[..., None], 0)
        yield Factors("weight", outputs, ids)
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
        source: its input, detached; of an embedding its ids.
        output: with its graph.
        version: the output's when the layer returned it; a later one was changed in place.
        scale: of an embedding, by which it multiplies the rows.
        repeat: what it takes to compute it again. None: its gradient has factors.
    """

    name: str
    module: nn.Module
    source: Tensor
    output: Tensor
    version: int
    scale: float = 1.0
    repeat: Repeat | None = None


def per_sequence_gradients(
    calls: Sequence[LayerCall], gradients: Sequence[Tensor | None], batch: int
) -> list[tuple[LayerCall, Tensor | None]]:
    """Pairs each call with the gradient by its output, split by sequence for positions, too.

    Positional embeddings are the same for all sequences. Where they are added to token embeddings
    as they are, the gradient that arrives at a token's embedding is each sequence's own; elsewhere
    none is.

    Args:
        calls: in the order of the forward.
        gradients: of the summed losses by each call's output; None for one without a part.
        batch: number of sequences.
    """
    pairs, tokens = [], None
    for call, gradient in zip(calls, gradients, strict=True):
        split, own = call, gradient
        if isinstance(call.module, nn.Embedding) and call.repeat is None:
            if not are_positions(call.source):
                tokens = gradient
            elif tokens is None or gradient is None:
                pass
            elif nearly_equal(tokens.sum(dim=0), gradient[0]):
                split, own = call._replace(source=call.source.expand(batch, -1)), tokens
        pairs.append((split, own))
    return pairs


def observed_layers(model: nn.Module, blocks: str | list[str]) -> dict[str, nn.Module]:
    """The trainable layers with factors of ``SketchSettings.blocks``, in the model's order; ≥ 1."""
    if blocks == "model":
        return _trainable(model, "", LAYERS)
    matrices: dict[str, nn.Module] = {}
    for prefix in observed_prefixes(model, blocks):
        trainable = _trainable(model, prefix, MATRICES)
        if not trainable:
            raise UserError(f"block `{prefix}` has no trainable nn.Linear or Conv1D to sketch")
        matrices |= trainable
    return matrices


def layers_to_repeat(model: nn.Module, blocks: str | list[str]) -> dict[str, nn.Module]:
    """Further layers of ``SketchSettings.blocks`` that have trainable parameters of their own.

    Their gradients have no factors: ``repeated.py``.
    """
    prefixes = observed_prefixes(model, blocks)
    return {
        name: module
        for name, module in model.named_modules()
        if name
        and any(_is_below(name, prefix) for prefix in prefixes)
        and not has_factors(module, LAYERS if blocks == "model" else MATRICES)
        and any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        # Vectors count in whole models only; others' matrices may be below a layer.
        and (blocks == "model" or any(module.children()) or _has_matrix(module))
    }


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False))


def observed_entries(model: nn.Module, blocks: str | list[str]) -> int:
    """Entries of all trainable parameters that ``blocks`` names; without vectors but for model."""
    prefixes = observed_prefixes(model, blocks)
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and any(_is_below(name, prefix) for prefix in prefixes)
        and (blocks == "model" or parameter.dim() >= 2)
    )


def observed_prefixes(model: nn.Module, blocks: str | list[str]) -> list[str]:
    """Names of the modules that ``SketchSettings.blocks`` stands for; "" is the whole model."""
    if blocks == "model":
        return [""]
    if blocks in ("last", "all"):
        stack = transformer_blocks(model)
        last = f"{stack}.{len(model.get_submodule(stack)) - 1}"  # type: ignore[arg-type]
        return [last if blocks == "last" else stack]
    prefixes = [blocks] if isinstance(blocks, str) else list(blocks)
    names = [name for name, _ in model.named_modules()]
    for prefix in prefixes:
        if prefix not in names:
            near = difflib.get_close_matches(prefix, names, n=3, cutoff=0.0)
            raise UserError(f"the model has no block `{prefix}`; the nearest are {near}")
    return prefixes


def has_factors(module: nn.Module, kinds: tuple[type[nn.Module], ...] = LAYERS) -> bool:
    """Whether a layer computes what one of these kinds does; an embedding may scale its rows."""
    return isinstance(module, kinds) and (
        isinstance(module, nn.Embedding)
        or any(type(module).forward is kind.forward for kind in kinds)
    )


def _trainable(
    model: nn.Module, prefix: str, kinds: tuple[type[nn.Module], ...]
) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if _is_below(name, prefix)
        and has_factors(module, kinds)
        and isinstance(module.weight, nn.Parameter)  # a layer norm may have none
        and module.weight.requires_grad
    }


def _is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.") or not prefix


def look_up(
    module: nn.Embedding, arguments: tuple[Any, ...], options: dict[str, Any], output: Tensor
) -> tuple[Tensor, float] | None:
    """The ids of an embedding's call, and by what it scales their rows; None if it does else.

    A subclass may scale rows (Gemma) or count positions itself (OPT): what explains its output
    counts.
    """
    if type(module).forward is nn.Embedding.forward:
        return (arguments[0] if arguments else options["input"]).detach(), 1.0
    scale, weight = float(getattr(module, "embed_scale", 1.0)), module.weight.detach()
    for tensor in (*arguments, *options.values()):
        if not isinstance(tensor, Tensor) or tensor.shape != output.shape[:-1]:
            continue
        for offset in (0, getattr(module, "offset", 0)):
            ids = tensor.detach().long() + offset
            if int(ids.min()) >= 0 and int(ids.max()) < len(weight):
                expected = (weight[ids] * scale).to(output.dtype)
                if torch.allclose(expected, output.detach(), rtol=1e-2, atol=1e-6):
                    return ids, scale
    return None


def are_positions(ids: Tensor) -> bool:
    """Whether an embedding's ids are positions, the same for all sequences: (1, T), consecutive."""
    return len(ids) == 1 and torch.equal(ids[0], ids[0, 0] + torch.arange(ids.shape[-1]).to(ids))


def nearly_equal(first: Tensor, second: Tensor) -> bool:
    """To the rounding of sums in half precision; another factor or place is far off."""
    return bool((first - second).norm() <= 0.05 * second.norm())


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
