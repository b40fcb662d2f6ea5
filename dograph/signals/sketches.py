"""Gradient sketches: every sequence's gradient in few numbers, without a per-sample backward."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dograph.errors import UserError


@dataclass(frozen=True)
class SketchSettings:
    """What is sketched, and how finely.

    Attributes:
        blocks: ``last`` (the last Transformer block's matrices), ``all`` (every block's), or
            names of modules whose matrices are observed, e.g. ``["transformer.h.3.mlp"]``.
        rank: r ≥ 1; each matrix gives r·r numbers. A side of the matrix with at most r features
            is kept as it is (the identity in place of a projection, hence without error).
        seed: of the projections.
        fresh: new projections every step, as published; else the same for the whole run, so
            that sketches of different steps can be compared.
        exact: full gradients instead of sketches, by one backward a sequence: for tiny models
            and tests. ``blocks="all"`` then means every parameter of the model.
    """

    blocks: str | list[str] = "last"
    rank: int = 16
    seed: int = 0
    fresh: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"rank is {self.rank}: a sketch needs at least 1")


class SequenceSketcher:
    """Sketches the gradient of every sequence's loss from one partial backward (ours).

    For a matrix with input ``a`` (T, n_in) and output gradient ``e`` (T, n_out) a sequence's
    gradient is ``Σ_t a_t ⊗ e_t``; its sketch is ``Σ_t (a_t P) ⊗ (e_t Q)`` with Gaussian ``P``
    (n_in, r) and ``Q`` (n_out, r) of variance 1/r, joined over the matrices. Inner products of
    sketches estimate those of the gradients without bias. Sequences must not mix in the model
    (no batch normalisation).

    Hooks keep the inputs and outputs of the model's latest forward. They need eager execution:
    ``torch.compile`` hides them. Training is not touched: no ``.grad``, no random state, no
    parameter or buffer, and the graph stays usable.

    Args:
        model: any PyTorch model of ``nn.Linear`` or transformers' ``Conv1D`` matrices whose own
            ``forward`` is called, e.g. a Hugging Face causal language model.
        settings: what to sketch.

    Attributes:
        modules: the observed matrices by name; none where every parameter's gradient is exact.
        recording: while False the hooks keep nothing.

    Raises:
        UserError: if the blocks are unknown or have no trainable matrix.
    """

    def __init__(self, model: nn.Module, settings: SketchSettings) -> None:
        self.settings = settings
        everything = settings.exact and settings.blocks == "all"
        self.modules = {} if everything else observed_matrices(model, settings.blocks)
        self.recording = True
        self._inside_forward = False
        self._records: list[tuple[str, Tensor, Tensor]] = []
        self._projections: dict[tuple[str, int, torch.device, torch.dtype], Tensor] = {}
        self._parameters = self._exact_parameters(model) if settings.exact else []
        self._hooks = [] if settings.exact else self._attach(model)

    def sketch(self, losses: Tensor, step: int = 0) -> Tensor:
        """Sketches the sequences of the model's latest forward.

        Args:
            losses: (B,) mean token loss of each sequence, its graph alive. Call this before the
                training's own backward, which needs no ``retain_graph`` of its own.
            step: optimiser step, the projections' seed if they are fresh.

        Returns:
            (B, k) detached, float32 (float64 for a float64 model), k being the sum of
            ``min(n_in, r) · min(n_out, r)`` over the matrices; (B, P) if ``exact``.

        Raises:
            UserError: if no forward was recorded, or a matrix has no part in the losses.
        """
        if losses.dim() != 1 or not losses.requires_grad:
            raise UserError(
                f"sketch needs one loss a sequence with its graph alive, got shape "
                f"{tuple(losses.shape)} and requires_grad={losses.requires_grad}"
            )
        if self.settings.exact:
            return self._exact_gradients(losses)
        records, self._records = self._records, []
        if not records:
            raise UserError(
                "nothing was recorded to sketch: set `recording = True`, call the model itself "
                "(not its parts) with gradients enabled, then sketch once, before its backward"
            )
        outputs = [output for _, _, output in records]
        gradients = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
        parts: dict[str, Tensor] = {}
        with torch.no_grad(), torch.autocast(losses.device.type, enabled=False):
            for (name, source, _), gradient in zip(records, gradients, strict=True):
                part = self._project(name, source, gradient, len(losses), step)
                # A module used several times in a forward has the sum of its uses' gradients.
                parts[name] = parts[name] + part if name in parts else part
        return torch.cat([parts[name] for name in self.modules if name in parts], dim=1)

    def detach(self) -> None:
        """Removes the hooks and lets go of what they kept."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._records = [], []

    def _project(
        self, name: str, source: Tensor, gradient: Tensor | None, batch: int, step: int
    ) -> Tensor:
        """(B, r·r) sketch of one use of a matrix."""
        if gradient is None:
            raise UserError(
                f"the output of `{name}` has no part in the losses: they must come from the "
                "model's latest forward, without torch.compile around the observed matrices; "
                "a matrix that the model leaves unused must not be in `blocks`"
            )
        if len(source) != batch:
            raise UserError(
                f"`{name}` saw an input of shape {tuple(source.shape)} in a batch of {batch} "
                "sequences: only matrices with the batch as first dimension can be sketched"
            )
        exact = torch.promote_types(source.dtype, torch.float32)
        left = source.to(exact).reshape(batch, -1, source.shape[-1])
        right = gradient.to(exact).reshape(batch, -1, gradient.shape[-1])
        left = self._reduce(left, f"{name}/in", step)
        right = self._reduce(right, f"{name}/out", step)
        return torch.einsum("btr,bts->brs", left, right).flatten(1)

    def _reduce(self, features: Tensor, side: str, step: int) -> Tensor:
        """(B, T, n) features as (B, T, r), or as they are where n ≤ r."""
        width, rank = features.shape[-1], self.settings.rank
        if width <= rank:
            return features
        if self.settings.fresh:
            return features @ self._projection(side, width, step).to(features)
        key = (side, width, features.device, features.dtype)
        if key not in self._projections:
            self._projections[key] = self._projection(side, width, None).to(features)
        return features @ self._projections[key]

    def _projection(self, side: str, width: int, step: int | None) -> Tensor:
        """(n, r) Gaussian of variance 1/r; drawn on the CPU, so equal on every device."""
        text = f"{self.settings.seed}/{step}/{side}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
        generator = torch.Generator().manual_seed(seed)
        rank = self.settings.rank
        return torch.randn(width, rank, generator=generator) / rank**0.5

    def _attach(self, model: nn.Module) -> list[Any]:
        hooks = [
            model.register_forward_pre_hook(self._open),
            model.register_forward_hook(self._close),
        ]
        for name, module in self.modules.items():
            hooks.append(module.register_forward_hook(self._recorder(name)))
        return hooks

    def _open(self, *_: Any) -> None:
        self._records = []
        self._inside_forward = True

    def _close(self, *_: Any) -> None:
        # Activation checkpointing runs blocks again in the backward: nothing to record there.
        self._inside_forward = False

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self.recording and self._inside_forward and output.requires_grad:
                self._records.append((name, inputs[0].detach(), output))

        return record

    def _exact_parameters(self, model: nn.Module) -> list[Tensor]:
        if self.settings.blocks == "all":
            return [parameter for parameter in model.parameters() if parameter.requires_grad]
        return [weight_of(module) for module in self.modules.values()]

    def _exact_gradients(self, losses: Tensor) -> Tensor:
        rows = []
        for loss in losses:
            gradients = torch.autograd.grad(
                loss, self._parameters, retain_graph=True, materialize_grads=True
            )
            row = torch.cat([gradient.flatten() for gradient in gradients])
            rows.append(row.to(torch.promote_types(row.dtype, torch.float32)))
        return torch.stack(rows)


def observed_matrices(model: nn.Module, blocks: str | list[str]) -> dict[str, nn.Module]:
    """Trainable ``nn.Linear`` and ``Conv1D`` modules of the chosen blocks, by name, in order.

    Args:
        model: where to look.
        blocks: as in ``SketchSettings``.

    Returns:
        At least one module by its name in the model.

    Raises:
        UserError: if a block is unknown, with the nearest names, or has no trainable matrix.
    """
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
        found = {
            name: module
            for name, module in model.named_modules()
            if (name == prefix or name.startswith(f"{prefix}.") or not prefix)
            and isinstance(module, nn.Linear | Conv1D)
            and weight_of(module).requires_grad
        }
        if not found:
            raise UserError(f"block `{prefix}` has no trainable nn.Linear or Conv1D to sketch")
        matrices |= found
    return matrices


def transformer_blocks(model: nn.Module) -> str:
    """Name of the list of Transformer blocks: the longest outermost ``nn.ModuleList``.

    Args:
        model: where to look.

    Returns:
        Its name, e.g. ``transformer.h`` in GPT-2, ``model.layers`` in Llama.

    Raises:
        UserError: if there is no such list.
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
    """The weight of an observed matrix: (n_out, n_in) for Linear, (n_in, n_out) for Conv1D.

    Args:
        module: an ``nn.Linear`` or ``Conv1D``.

    Returns:
        The parameter itself.
    """
    return module.get_parameter("weight")
