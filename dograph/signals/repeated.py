"""Gradients of layers without factors: a layer is computed again for each sequence alone (ours).

Most norms, fused experts, routers and state-space mixers have parameters whose gradient does not
factorise into one input and one output gradient. Their own forward is repeated on what a sequence
gave them, and differentiated by the gradients that arrived at their outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call


class NotSeparable(Exception):  # noqa: N818  (no error: the layer is left out)
    """A layer whose call cannot be split by sequence, or comes out otherwise when repeated."""


class Repeat(NamedTuple):
    """What it takes to compute a layer's call again, sequence by sequence.

    Attributes:
        arguments: by position, detached.
        options: by keyword, detached.
        outputs: its differentiable outputs, with their graph.
        gradients: of the summed losses by each of them, once known; None for one without a part.
        autocast: whether it ran under autocast, and in which type.
        sequences: B.
        tokens: T of each; rows of a flattened (B·T, …) tensor that belong to one sequence.
    """

    arguments: tuple[Any, ...]
    options: dict[str, Any]
    outputs: tuple[Tensor, ...]
    gradients: tuple[Tensor | None, ...]
    autocast: tuple[bool, torch.dtype]
    sequences: int
    tokens: int


def detached(value: Any) -> Any:
    """The same with its tensors detached."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: detached(each) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(detached, value))
    return value


def differentiable(output: Any) -> tuple[Tensor, ...]:
    """The tensors of a layer's output that need a gradient."""
    each = output if isinstance(output, tuple | list) else (output,)
    return tuple(one for one in each if isinstance(one, Tensor) and one.requires_grad)


def sequence_gradients(
    module: nn.Module, repeat: Repeat, parameters: Mapping[str, Tensor], verify: bool
) -> Iterator[dict[str, Tensor]]:
    """Gradients of some sequences after others: by name, (b, …) with b sequences first.

    Args:
        module: the layer.
        repeat: its call.
        parameters: whose gradients are wanted, by their names in the layer.
        verify: whether outputs are compared with those of the call.

    Raises:
        NotSeparable: for a call that cannot be split; with ``verify`` also for other outputs.
    """
    device = repeat.outputs[0].device.type
    enabled, dtype = repeat.autocast
    with torch.enable_grad(), torch.autocast(device, dtype=dtype, enabled=enabled):
        if together := _all_at_once(module, repeat, parameters):
            yield together
            return
        for index in range(repeat.sequences):
            yield _of_one(module, repeat, parameters, index, verify)


def _all_at_once(
    module: nn.Module, repeat: Repeat, parameters: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """(B, n) gradients of a norm's vectors, which multiply or shift features; None for others.

    Each sequence gets a copy of them in one forward, whose output must be the recorded one.
    """
    alone = len(repeat.arguments) == 1 and not repeat.options and len(repeat.outputs) == 1
    source, gradient = repeat.arguments[0] if alone else None, repeat.gradients[0]
    if not isinstance(source, Tensor) or source.dim() < 2 or len(source) != repeat.sequences:
        return None
    vectors = all(parameter.dim() == 1 for parameter in parameters.values())
    if gradient is None or not vectors or any(module.children()):
        return None
    ones = (1,) * (source.dim() - 2)
    copies = {
        name: parameter.detach().expand(len(source), *ones, -1).clone().requires_grad_()
        for name, parameter in parameters.items()
    }
    try:
        output = functional_call(module, copies, (source,))
    except RuntimeError:  # e.g. of a fused kernel, which takes vectors only
        return None
    if not isinstance(output, Tensor) or output.shape != gradient.shape:
        return None
    recorded = repeat.outputs[0].detach()
    if recorded.numel() and not _nearly_equal(output.detach(), recorded):
        return None
    gradients = torch.autograd.grad(output, list(copies.values()), gradient)
    return {name: each.flatten(1) for name, each in zip(copies, gradients, strict=True)}


def _of_one(
    module: nn.Module, repeat: Repeat, parameters: Mapping[str, Tensor], index: int, verify: bool
) -> dict[str, Tensor]:
    """(1, …) gradients of one sequence."""
    arguments, options = (_rows(each, repeat, index) for each in (repeat.arguments, repeat.options))
    try:
        outputs = differentiable(module(*arguments, **options))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise NotSeparable(f"it cannot be repeated for one sequence ({error})") from error
    if len(outputs) != len(repeat.outputs):
        raise NotSeparable("it gives other outputs when it is repeated")
    pairs = []
    for output, recorded, gradient in zip(outputs, repeat.outputs, repeat.gradients, strict=True):
        if verify:
            own = _rows(recorded.detach(), repeat, index, shared=False)
            if own.shape != output.shape or not _nearly_equal(output.detach(), own):
                raise NotSeparable("a sequence alone gives another output than among others")
        if gradient is not None:
            pairs.append((output, _rows(gradient, repeat, index, shared=False)))
    if not pairs:
        raise NotSeparable("its outputs have no part in the losses")
    gradients = torch.autograd.grad(
        [output for output, _ in pairs],
        list(parameters.values()),
        [gradient for _, gradient in pairs],
        materialize_grads=True,
        allow_unused=True,
    )
    return {name: each[None] for name, each in zip(parameters, gradients, strict=True)}


def _rows(value: Any, repeat: Repeat, index: int, shared: bool = True) -> Any:
    """One sequence's part of a value; tensors with one row, if ``shared``, are all sequences'."""
    if isinstance(value, dict):
        return {key: _rows(each, repeat, index, shared) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_rows(each, repeat, index, shared) for each in value)
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if len(value) == repeat.sequences:
        return value[index : index + 1]
    if len(value) == repeat.sequences * repeat.tokens:
        return value[index * repeat.tokens : (index + 1) * repeat.tokens]
    if shared and len(value) == 1:
        return value
    raise NotSeparable(f"its tensors of shape {tuple(value.shape)} have no sequences")


def _nearly_equal(one: Tensor, other: Tensor) -> bool:
    """To the rounding of half precision; what mixes sequences is far off."""
    one, other = one.float(), other.float()
    return bool((one - other).norm() <= 0.03 * other.norm() + 1e-12)
