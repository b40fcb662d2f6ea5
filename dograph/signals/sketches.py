"""Gradient sketches: every sequence's gradient in few numbers, without a per-sample backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dograph.errors import check_range
from dograph.signals.layers import LayerCall, observed_layers, weight_of
from dograph.signals.projections import Projections
from dograph.signals.recorded_forward import RecordedForward, SketchMode
from dograph.signals.shared_region import SharedRegion, find_shared_region


@dataclass(frozen=True)
class SketchSettings:
    """Choice of layers to sketch, and of the sketch's size.

    Attributes:
        blocks: ``last`` (the last Transformer block's matrices), ``all`` (every block's), names
            of modules whose matrices are observed, e.g. ``["transformer.h.3.mlp"]``, or
            ``model``: matrices, biases, layer norms, embeddings and output layer of the whole
            model, which leaves out other kinds of layers. Positional embeddings are taken to be
            added to token embeddings, as in GPT-2.
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

    Args:
        model: any PyTorch model of ``nn.Linear`` or transformers' ``Conv1D`` matrices whose own
            ``forward`` is called, e.g. a Hugging Face causal language model.
        settings: what to sketch.

    Attributes:
        modules: the observed layers by name; none where every parameter's gradient is exact.
    """

    def __init__(self, model: nn.Module, settings: SketchSettings) -> None:
        self.settings = settings
        everything = settings.exact and settings.blocks in ("all", "model")
        self.modules = {} if everything else observed_layers(model, settings.blocks)
        self.projections = Projections(
            self.modules, settings.rank, settings.seed, settings.fresh, settings.blocks == "model"
        )
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
        """Records the model's next forward, and only that one; empty until the model is called."""
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
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end),
        ]
        for name, module in {**region, **self.modules}.items():
            self._hooks.append(module.register_forward_hook(self._recorder(name)))
        if self._region is not None and self._region.first_block is not None:
            first = self._region.first_block
            self._hooks.append(first.register_forward_pre_hook(self._enter, with_kwargs=True))

    def _begin(self, *_: Any) -> None:
        self._running, self._waiting = self._waiting, None
        if self._running is not None:
            self._running.begin()

    def _enter(self, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else options.get("hidden_states")
        if self._running is not None and isinstance(hidden, Tensor):
            self._running.enter_region(hidden)

    def _end(self, *_: Any) -> None:
        # Activation checkpointing runs blocks again in the backward: nothing to record there.
        self._running = None

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if self._running is None or not self._running.wants(name):
                return
            # A router or an attention may take and return other things than one tensor.
            tensors = inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
            if tensors and output.requires_grad:
                source = inputs[0].detach()
                self._running.add(LayerCall(name, module, source, output, output._version))

        return record
