"""The part of a model whose backward sketch and training can share, and whether they can."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from dograph.signals.layers import (
    MATRICES,
    LayerCall,
    are_positions,
    nearly_equal,
    transformer_blocks,
)

FACTORED = (*MATRICES, nn.Embedding)
"""Layers whose parameters' gradients are made from factors, so that parameters may be shared with
other layers; the gradients of the rest come from autograd."""

logger = logging.getLogger(__name__)


class NotShareable(Exception):  # noqa: N818  (no error: the sketch takes its own backward)
    """A model, or a forward of it, whose backward has to be taken twice; says why."""


@dataclass
class SharedRegion:
    """The first sketched block and everything after it.

    Attributes:
        first_block: its input is where the region begins. None: the region is the whole model.
        layers: everything in the region that has parameters of its own, by name.
        logged: whether the log has said why the backward is not shared.
    """

    first_block: nn.Module | None
    layers: dict[str, nn.Module]
    logged: bool = False

    def log_once(self, reason: NotShareable) -> None:
        """Logs why the backward is not shared, the first time."""
        if not self.logged:
            logger.info("sketches take a backward of their own: %s", reason)
        self.logged = True


class PartialBackward(NamedTuple):
    """A backward of the summed, unweighted losses to the outputs of recorded layers.

    Attributes:
        losses: (B,) with their graph.
        calls: in the order of the forward.
        output_gradients: of the summed losses by each call's output; None for one without a part.
        by_sequence: the same, made each sequence's own by ``per_sequence_gradients``.
        region_input: input of the region's first block, with its graph. None where the region
            is the whole model, or the input needs no gradient.
        region_gradient: of the summed losses by it.
    """

    losses: Tensor
    calls: Sequence[LayerCall]
    output_gradients: Sequence[Tensor | None]
    by_sequence: Sequence[tuple[LayerCall, Tensor | None]]
    region_input: Tensor | None
    region_gradient: Tensor | None


def find_shared_region(model: nn.Module, blocks: str | list[str]) -> SharedRegion | None:
    """Finds what a shared backward needs; None where ``blocks`` are named one by one."""
    if not isinstance(blocks, str) or blocks not in ("last", "all", "model"):
        return None
    first_block, before = None, set()
    if blocks != "model":
        stack = transformer_blocks(model)
        children = dict(model.get_submodule(stack).named_children())
        first = list(children)[-1 if blocks == "last" else 0]
        first_block = children[first]
        before = {f"{stack}.{name}" for name in list(children)[: list(children).index(first)]}
    layers = {
        name: module
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        and not any(name == block or name.startswith(f"{block}.") for block in before)
    }
    return SharedRegion(first_block, layers)


def check_shareable(taken: PartialBackward, region: SharedRegion) -> list[tuple[LayerCall, Tensor]]:
    """The calls with their gradients; NotShareable unless all parameters' follow from them."""
    if region.first_block is not None and taken.region_gradient is None:
        raise NotShareable("the blocks' input was not seen, or needs no gradient")
    check_positions(taken)
    calls = check_calls(taken)
    if taken.region_input is not None and len(taken.region_input) != len(taken.losses):
        raise NotShareable("the blocks' input has no sequence in its first dimension")
    uses = Counter(
        id(parameter)
        for call, _ in calls
        for parameter in call.module.parameters(recurse=False)
        if parameter.requires_grad
    )
    reached = parameter_uses(taken.losses, taken.region_input)
    # Fewer uses than calls: autocast casts a shared parameter only once.
    if reached.keys() != uses.keys() or any(reached[key] > uses[key] for key in uses):
        raise NotShareable("parameters are used beside the layers that own them")
    return calls


def check_positions(taken: PartialBackward) -> None:
    """Raises NotShareable unless positions are added to tokens unchanged."""
    tokens = None
    for call, gradient in zip(taken.calls, taken.output_gradients, strict=True):
        if gradient is None or not isinstance(call.module, nn.Embedding):
            continue
        if not are_positions(call.source):
            tokens = gradient
        elif tokens is None or not nearly_equal(tokens.sum(dim=0), gradient[0]):
            raise NotShareable(f"`{call.name}` is not added to tokens as it is")


def check_calls(taken: PartialBackward) -> list[tuple[LayerCall, Tensor]]:
    """The calls with their gradients, without outputs that are no longer needed."""
    batch = len(taken.losses)
    calls = []
    for call, gradient in taken.by_sequence:
        if gradient is None:
            raise NotShareable(f"the output of `{call.name}` has no part in the losses")
        if call.output._version != call.version:
            raise NotShareable(f"the output of `{call.name}` is changed in place")
        if len(call.source) != batch or len(gradient) != batch:
            raise NotShareable(f"`{call.name}` has no sequence in its first dimension")
        # Only autograd needs outputs again: keeping the logits would cost much memory.
        factored = type(call.module) in FACTORED
        calls.append((call._replace(output=gradient.new_empty(0)) if factored else call, gradient))
    owners = Counter(id(p) for call, _ in calls for p in call.module.parameters(recurse=False))
    for call, _ in calls:
        own = call.module.parameters(recurse=False)
        if type(call.module) not in FACTORED and any(owners[id(p)] > 1 for p in own):
            raise NotShareable(f"`{call.name}` shares a parameter, or is called twice")
    return calls


def parameter_uses(losses: Tensor, region_input: Tensor | None) -> Counter[int]:
    """Counts the uses of parameters, by id, that losses depend on other than through the input."""
    end = None if region_input is None else region_input.grad_fn
    uses: Counter[int] = Counter()
    waiting, known = [losses.grad_fn], {losses.grad_fn}
    while waiting:
        node: Any = waiting.pop()
        for following, output in node.next_functions:
            if hasattr(following, "variable"):
                uses[id(following.variable)] += 1
            if following is end and end is not None:
                if region_input is not None and output != region_input.output_nr:
                    raise NotShareable("the blocks' input is one of several results")
            elif following is not None and following not in known:
                known.add(following)
                waiting.append(following)
    return uses
