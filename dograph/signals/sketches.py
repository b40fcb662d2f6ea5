"""Gradient sketches: every sequence's gradient in few numbers, without a per-sample backward."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dograph.errors import check_range
from dograph.signals.layers import (
    LayerCall,
    layers_to_repeat,
    look_up,
    observed_entries,
    observed_layers,
    weight_of,
)
from dograph.signals.projections import Projections
from dograph.signals.recorded_forward import RecordedForward, SketchMode
from dograph.signals.repeated import Repeat, detached, differentiable
from dograph.signals.shared_region import SharedRegion, find_shared_region

logger = logging.getLogger(__name__)
ENOUGH = 0.5
"""Share of the parameters below which sketches that see no more are warned of."""
Recorder = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]
"""A forward hook: from a layer, its arguments, its options and its output to another output."""


@dataclass(frozen=True)
class SketchSettings:
    """Choice of layers to sketch, and of the sketch's size.

    Attributes:
        blocks: ``last`` (the last Transformer block's matrices), ``all`` (every block's), names
            of modules whose matrices are observed, e.g. ``["transformer.h.3.mlp"]``, or
            ``model``: every parameter of the whole model. Layers that cannot be split by sequence
            are left out, which the log says once with the share of parameters that is sketched.
            Positional embeddings are taken to be added to token embeddings, as in GPT-2.
        rank: r ≥ 1; each matrix gives r·r numbers, a vector at most as many. A side of the
            matrix with at most r features is kept as it is (the identity in place of a
            projection, hence without error), and so is a vector of at most r·r.
        seed: seed of the projections.
        fresh: new projections every step, as published; else the same for the whole run, so
            that sketches of different steps can be compared.
        exact: full gradients instead of sketches, by one backward a sequence: for tiny models
            and tests. ``all`` and ``model`` then both mean every parameter of the model.
    """

    blocks: str | list[str] = "last"
    rank: int = 16
    seed: int = 0
    fresh: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        check_range("sketch.rank", self.rank, at_least=1)


class SequenceSketcher:
    """Sketches the gradient of every sequence's loss from one partial backward (ours).

    For a matrix with input ``a`` (T, n_in) and output gradient ``e`` (T, n_out) a sequence's
    gradient is ``Σ_t a_t ⊗ e_t``; its sketch is ``Σ_t (a_t P) ⊗ (e_t Q)`` with Gaussian ``P``
    (n_in, r) and ``Q`` (n_out, r) of variance 1/r, joined over the matrices. Inner products of
    sketches estimate those of the gradients without bias. Sequences must not mix in the model
    (no batch normalisation).

    Hooks keep the inputs and outputs of a recorded forward. They need eager execution:
    ``torch.compile`` hides them. Training is not touched: no ``.grad``, no random state, no
    parameter or buffer, and the graph stays usable.

        forward = sketcher.record()
        losses = ...  # (B,) of one call of the model
        sketch = forward.sketch(losses)

    Other layers (most norms, fused experts, state-space mixers) are computed once more for each
    sequence: ``repeated.py``.

    Args:
        model: any PyTorch model of ``nn.Linear`` or transformers' ``Conv1D`` matrices whose own
            ``forward`` is called, e.g. a Hugging Face causal language model.
        settings: what to sketch.

    Attributes:
        modules: the observed layers with factors by name; none where every parameter's gradient is
            exact.
    """

    def __init__(self, model: nn.Module, settings: SketchSettings) -> None:
        self.settings = settings
        everything = settings.exact and settings.blocks in ("all", "model")
        self.modules = {} if everything else observed_layers(model, settings.blocks)
        whole = settings.blocks == "model"
        repeated = {} if settings.exact else layers_to_repeat(model, settings.blocks)
        self.projections = Projections(
            self.modules, settings.rank, settings.seed, settings.fresh, whole, repeated
        )
        self._entries = 0 if everything else observed_entries(model, settings.blocks)
        self._shape, self._told = (0, 0), False
        self._waiting: RecordedForward | None = None
        self._running: RecordedForward | None = None
        self._exact: list[Tensor] | None = None
        self._region: SharedRegion | None = None
        self._hooks: list[Any] = []
        if settings.exact:
            weights = [weight_of(module) for module in self.modules.values()]
            self._exact = weights or [each for each in model.parameters() if each.requires_grad]
        else:
            self._region = find_shared_region(model, settings.blocks)
            self._attach(model)

    def record(self, mode: SketchMode = SketchMode.OWN) -> RecordedForward:
        """Records the model's next forward with gradients, and only that; empty until it comes."""
        self._waiting = RecordedForward(self.projections, self._region, mode, self._exact)
        return self._waiting

    def detach(self) -> None:
        """Removes the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._waiting, self._running = [], None, None

    def _attach(self, model: nn.Module) -> None:
        region = self._region.layers if self._region is not None else {}
        self._hooks = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end),
        ]
        for name, module in {**region, **self.modules, **self.projections.repeated}.items():
            hook = self._recorder(name)
            self._hooks.append(module.register_forward_hook(hook, with_kwargs=True))
        if self._region is not None and self._region.first_block is not None:
            first = self._region.first_block
            self._hooks.append(first.register_forward_pre_hook(self._enter, with_kwargs=True))

    @property
    def observed(self) -> list[str]:
        """Names of all layers whose calls are looked at."""
        return [*self.modules, *self.projections.repeated]

    def coverage(self) -> tuple[int, int]:
        """Entries of the parameters sketched so far, and of all that ``blocks`` names."""
        return sum(self.projections.covered.values()), self._entries

    def tell_coverage(self) -> None:
        """Logs once, after the first sketch, what share of the parameters is sketched, if not all.

        A warning where it is less than half.
        """
        sketched, entries = self.coverage()
        if self._told or not sketched or sketched == entries:
            return
        self._told, share = True, sketched / entries
        reasons = [f"{name} ({why})" for name, why in self.projections.left_out.items()]
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        logger.log(
            logging.WARNING if share < ENOUGH else logging.INFO,
            "sketches see %.0f %% of the parameters that sketch.blocks (%s) names; left out: %s%s",
            100 * share,
            self.settings.blocks,
            ", ".join(reasons[:3]) or "layers without a part in the losses",
            more,
        )

    def _begin(self, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():  # a validation, between two steps of a loop
            return
        self._running, self._waiting = self._waiting, None
        self._shape = _sequences_and_tokens((*inputs, *options.values()))
        if self._running is not None:
            self._running.begin()

    def _enter(self, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else options.get("hidden_states")
        if self._running is not None and isinstance(hidden, Tensor):
            self._running.enter_region(hidden)

    def _end(self, *_: Any) -> None:
        # Activation checkpointing runs blocks again in the backward: nothing to record there.
        self._running = None

    def _recorder(self, name: str) -> Recorder:
        def record(
            module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any
        ) -> Any:
            if self._running is None or not self._running.wants(name):
                return None
            if name in self.projections.repeated:
                return self._record_repeated(name, module, inputs, options, output)
            # A router or an attention may take and return other things than one tensor.
            tensors = inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
            if not tensors or not output.requires_grad:
                return None
            source, scale = inputs[0].detach(), 1.0
            if isinstance(module, nn.Embedding):
                looked_up = look_up(module, inputs, options, output)
                if looked_up is None:
                    self.projections.repeated[name] = module
                    return self._record_repeated(name, module, inputs, options, output)
                source, scale = looked_up
            elif (
                source.dim() == 2 and len(source) == math.prod(self._shape) and not _is_expert(name)
            ):
                source = source.unflatten(0, self._shape)  # as OPT flattens sequences
            call = LayerCall(name, module, source, output, output._version, scale)
            self._running.add(call)
            return None

        return record

    def _record_repeated(
        self,
        name: str,
        module: nn.Module,
        inputs: tuple[Any, ...],
        options: dict[str, Any],
        output: Any,
    ) -> Any:
        """Records a layer that is computed again; returns what takes the place of its output."""
        outputs = differentiable(output)
        if not outputs or self._running is None:
            return None
        replaced = None
        if len(outputs) > 1:  # one may follow from another: each has its own gradient as a copy
            copies = {id(each): each.view_as(each) for each in outputs}
            replaced = type(output)(copies.get(id(each), each) for each in output)
            outputs = tuple(copies.values())
        device = outputs[0].device.type
        autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        arguments, taken = detached(inputs), detached(options)
        repeat = Repeat(arguments, taken, outputs, (), autocast, *self._shape)
        first = next((each for each in arguments if isinstance(each, Tensor)), outputs[0].detach())
        self._running.add(
            LayerCall(name, module, first, outputs[0], outputs[0]._version, repeat=repeat)
        )
        return replaced


def _sequences_and_tokens(inputs: Iterable[Any]) -> tuple[int, int]:
    """B and T of a model's call, by its first tensor of two dimensions or more."""
    for each in inputs:
        if isinstance(each, Tensor) and each.dim() >= 2:
            return len(each), each.shape[1]
    return 0, 0


def _is_expert(name: str) -> bool:
    """Whether a layer stands in a list within a block: it may see any tokens, in any order."""
    return sum(part.isdigit() for part in name.split(".")) > 1
