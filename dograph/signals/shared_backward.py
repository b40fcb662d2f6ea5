"""One backward for both the sketches and the weighted step (ours).

Training wants the gradient of ``Σ_i a_i ℓ_i``, but a mixer chooses the weights ``a`` from sketches,
which need a backward first. Two backwards would do. One is enough, since sequences never mix:

1. The forward records every layer of the shared region: the first sketched block and all after it.
2. A backward of the *unweighted* ``Σ_i ℓ_i`` stops at the region's input. It brings ``e``, the
   gradient by each layer's output; row i of it is sequence i's own, whatever the weights are.
3. The sketches are projections of ``x_t ⊗ e_t``, x an observed layer's input (``projections.py``).
4. The mixer answers with weights. The gradient of the weighted loss by the same outputs is row i
   of ``e`` times ``a_i``: nothing above the region's input is differentiated again.
5. Each parameter of the region gets ``Σ_i a_i Σ_t x_it ⊗ e_it``: one product of matrices, as in
   its own backward. Layers without such factors ask autograd for their own parameters alone.
6. What arrived at the region's input is scaled likewise, and training's backward continues there.

So ``SharedBackward.loss`` is an autograd function of the region's input and parameters whose value
is the weighted loss and whose backward hands out steps 5 and 6. It saves the second pass through
the region's output layer and blocks. ``shared_region.py`` checks that it is right for a model.

::

    losses ℓ (B,)           taken once: gradients of Σ ℓ_i, one row a sequence
      │  output layer    ── e ─┬─► sketch: project x ⊗ e
      │  norm            ── e ─┤                │  mixer
      │  first sketched  ── e ─┤                ▼
      │  block                 │         weights a (B,)
      │                        │                │ scaled: row i times a_i
    region's input ─ gradient ─┴───────────────►├─► gradients of the region's parameters
      │                                         └─► gradient by the region's input
      │  blocks before it  ◄── continues: training's ordinary backward ─────┘
    embeddings

The book-keeping is known from differentially private training (Bu et al. 2023, arXiv 2210.00038).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dograph.signals.layers import MATRICES, LayerCall, factors
from dograph.signals.shared_region import FACTORED, PartialBackward, SharedRegion, check_shareable

WeightedLoss = Callable[[Tensor, Tensor], Tensor]
"""From (B,) weights and (B,) losses to the scalar that is trained on."""


def weighted_sum(weights: Tensor, losses: Tensor) -> Tensor:
    """``Σ_i a_i ℓ_i`` of (B,) weights and losses, with a backward of its own."""
    return (weights * losses).sum()


class SharedBackward:
    """The rest of a backward whose upper part has been taken already.

    Args:
        taken: the upper part, of the unweighted losses.
        region: what it went through.

    Attributes:
        calls: of the region's layers, with every sequence's own gradient by their outputs.
    """

    def __init__(self, taken: PartialBackward, region: SharedRegion) -> None:
        self.calls = check_shareable(taken, region)
        self.region_input, self.region_gradient = taken.region_input, taken.region_gradient
        owned = (p for call, _ in self.calls for p in call.module.parameters(recurse=False))
        self.parameters = list({id(p): p for p in owned if p.requires_grad}.values())

    def loss(self, weights: Tensor, losses: Tensor) -> Tensor:
        """``Σ_i a_i ℓ_i``, whose backward continues where the sketches' has ended.

        Its gradients are ``weighted_sum``'s to rounding, and can be taken once.
        """
        value = (weights * losses.detach()).sum()
        inputs = [*([] if self.region_input is None else [self.region_input]), *self.parameters]
        total: Tensor = _Continue.apply(value, self, weights, *inputs)
        return total

    def gradients(self, weights: Tensor) -> list[Tensor]:
        """Gradients of the weighted losses by the region's input, if any, and its parameters."""
        sums: dict[int, Tensor] = {}
        for call, gradient in self.calls:
            for parameter, part in _parameter_gradients(call, gradient, weights):
                known = sums.get(id(parameter))
                sums[id(parameter)] = part if known is None else known + part
        gradients = [sums[id(parameter)].to(parameter.dtype) for parameter in self.parameters]
        if self.region_gradient is None:
            return gradients
        return [self.region_gradient * _by_row(weights, self.region_gradient), *gradients]


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
            gradients = ctx.shared.gradients(ctx.weights * gradient)
        ctx.shared = None  # frees the logits' gradient
        return None, None, None, *gradients


def _parameter_gradients(
    call: LayerCall, gradient: Tensor, weights: Tensor
) -> list[tuple[nn.Parameter, Tensor]]:
    """Each trainable parameter of a layer with ``Σ_i a_i`` times its gradient of sequence i."""
    module = call.module
    own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
    if type(module) not in FACTORED:
        wanted = list(own.values())
        with torch.enable_grad():
            scaled = gradient * _by_row(weights, gradient)
            gradients = torch.autograd.grad(call.output, wanted, scaled, retain_graph=True)
        return list(zip(wanted, gradients, strict=True))
    source = call.source
    source = source.to(gradient.dtype) if source.is_floating_point() else source
    parts = []
    for part in factors(module, source, gradient):
        if part.parameter not in own:
            continue
        if part.inputs is None:  # a bias
            value = weights.to(part.outputs.dtype) @ part.outputs
        elif isinstance(module, nn.Embedding):
            value = _embedding_gradient(module, part.outputs, part.inputs, weights)
        else:
            value = _matrix_gradient(module, part.inputs, part.outputs, weights)
        parts.append((own[part.parameter], value))
    return parts


def _matrix_gradient(module: nn.Module, inputs: Tensor, outputs: Tensor, weights: Tensor) -> Tensor:
    """``Σ_i a_i Σ_t x_it ⊗ e_it`` as one product; the narrower side is scaled."""
    assert isinstance(module, MATRICES)
    if inputs.shape[-1] <= outputs.shape[-1]:
        inputs = inputs * _by_row(weights, inputs)
    else:
        outputs = outputs * _by_row(weights, outputs)
    left, right = inputs.flatten(0, 1), outputs.flatten(0, 1)
    return right.T @ left if isinstance(module, nn.Linear) else left.T @ right


def _embedding_gradient(
    module: nn.Embedding, ids: Tensor, gradient: Tensor, weights: Tensor
) -> Tensor:
    """(V, n) gradient of an embedding; 0 for its padding, as in its own backward."""
    rows = (gradient * _by_row(weights, gradient)).flatten(0, 1)
    padding = -1 if module.padding_idx is None else module.padding_idx
    total: Tensor = torch.ops.aten.embedding_dense_backward(
        rows, ids.flatten(), module.num_embeddings, padding, False
    )
    return total


def _by_row(weights: Tensor, values: Tensor) -> Tensor:
    """(B, 1, …) weights that multiply (B, …) values, in their type."""
    return weights.to(values.dtype).reshape(-1, *(1 for _ in values.shape[1:]))
