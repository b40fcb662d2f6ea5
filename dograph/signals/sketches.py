"""Gradient sketches: every sequence's gradient in few numbers, without a per-sample backward."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.signals.backward_reader import BackwardReader
from dograph.signals.layers import Factors, factors, observed_layers, unit_rows, weight_of
from dograph.signals.shared_backward import (
    NotShareable,
    Record,
    SharedBackward,
    check_positions,
    own_gradients,
    part_above,
)

logger = logging.getLogger(__name__)


WeightedLoss = Callable[[Tensor, Tensor], Tensor]
"""From (B,) weights and (B,) losses to the scalar that is trained on."""


@dataclass(frozen=True)
class SketchSettings:
    """What is sketched, and how finely.

    Attributes:
        blocks: ``last`` (the last Transformer block's matrices), ``all`` (every block's), names
            of modules whose matrices are observed, e.g. ``["transformer.h.3.mlp"]``, or
            ``model``: matrices, biases, layer norms, embeddings and output layer of the whole
            model, which leaves out other kinds of layers. Positional embeddings are taken to be
            added to token embeddings, as in GPT-2.
        rank: r ≥ 1; each matrix gives r·r numbers, a vector at most as many. A side of the
            matrix with at most r features is kept as it is (the identity in place of a
            projection, hence without error), and so is a vector of at most r·r.
        seed: of the projections.
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
        modules: the observed layers by name; none where every parameter's gradient is exact.
        recording: while False the hooks keep nothing.
        sharing: whether a forward's sketch is to share its backward with the training's.
        reading: whether it is to be read from the training's; see ``take_reader``.

    Raises:
        UserError: if the blocks are unknown or have no trainable matrix.
    """

    def __init__(self, model: nn.Module, settings: SketchSettings) -> None:
        self.settings = settings
        everything = settings.exact and settings.blocks in ("all", "model")
        self.modules = {} if everything else observed_layers(model, settings.blocks)
        self.recording, self.sharing, self.reading = True, False, False
        self._reader: BackwardReader | None = None
        self._above = None if settings.exact else part_above(model, settings.blocks)
        self._inside_forward = self._inside_part = False
        self._records: list[Record] = []
        self._below: Tensor | None = None
        self._reading_step, self._said = 0, False
        self._projections: dict[tuple[str, int, torch.device, torch.dtype], Tensor] = {}
        # Layers that share a parameter (an embedding and the output layer) share its sketch.
        self._first: dict[int, str] = {}
        for name, module in self.modules.items():
            self._first.setdefault(id(weight_of(module)), name)
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
        if self.settings.exact:
            return self._exact_gradients(_checked(losses))
        sketch, _ = self._sketch(losses, step)
        return sketch

    def sketch_and_share(self, losses: Tensor, step: int = 0) -> tuple[Tensor, WeightedLoss]:
        """As ``sketch``, and how training goes on from the backward that it took.

        Set ``sharing`` before the forward. Where the model does not let two share a backward, the
        plain way serves and the log says why, once.

        Args:
            losses: as in ``sketch``.
            step: as in ``sketch``.

        Returns:
            The sketches, and what makes ``Σ_i a_i ℓ_i`` of (B,) weights and losses: equal to the
            plain sum, its gradients to rounding.
        """
        if self._above is None or not self.sharing:
            return self.sketch(losses, step), weighted_sum
        sketch, take_rest = self._sketch(losses, step, shared=True)
        try:
            return sketch, take_rest().loss
        except NotShareable as reason:
            if not self._said:
                logger.info("sketches take a backward of their own: %s", reason)
            self._said = True
            return sketch, weighted_sum

    def take_reader(self, step: int = 0) -> BackwardReader:
        """What reads the latest forward's sketches from the backward to come.

        Args:
            step: as in ``sketch``.

        Raises:
            UserError: if ``reading`` was not set before the forward.
        """
        reader, self._reader = self._reader, None
        if reader is None:
            raise UserError(
                "nothing was recorded to read: set `reading = True`, then call the model"
            )
        self._reading_step = step
        return reader

    def _sketch(
        self, losses: Tensor, step: int, shared: bool = False
    ) -> tuple[Tensor, Callable[[], SharedBackward]]:
        """Sketches, and what builds the rest of the backward if it is shared."""
        losses = _checked(losses)
        records, below = self._records, self._below if shared else None
        self._records, self._below = [], None
        if not any(record.name in self.modules for record in records):
            raise UserError(
                "nothing was recorded to sketch: set `recording = True`, call the model itself "
                "(not its parts) with gradients enabled, then sketch once, before its backward"
            )
        outputs = [record.output for record in records]
        outputs += [] if below is None else [below]
        gradients = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
        below_gradient = None if below is None else gradients[-1]
        own = own_gradients(records, gradients[: len(records)], len(losses))
        parts: dict[str, Tensor] = {}
        with torch.no_grad(), torch.autocast(losses.device.type, enabled=False):
            for record, gradient in own:
                if record.name not in self.modules:
                    continue
                found = self._project(record.name, record.source, gradient, len(losses), step)
                for key, part in found:
                    # A parameter used several times in a forward has the sum of its gradients.
                    parts[key] = parts[key] + part if key in parts else part

        def take_rest() -> SharedBackward:
            assert self._above is not None
            if self._above.start is not None and below_gradient is None:
                raise NotShareable("the blocks' input was not seen, or needs no gradient")
            check_positions(records, gradients[: len(records)])
            return SharedBackward(losses, own, below, below_gradient)

        return torch.cat(list(parts.values()), dim=1), take_rest

    def detach(self) -> None:
        """Removes the hooks and lets go of what they kept."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._records, self._below, self._reader = [], [], None, None

    def _project_read(
        self, name: str, source: Tensor, gradient: Tensor, batch: int
    ) -> list[tuple[str, Tensor]]:
        return self._project(name, source, gradient, batch, self._reading_step)

    def _project(
        self, name: str, source: Tensor, gradient: Tensor | None, batch: int, step: int
    ) -> list[tuple[str, Tensor]]:
        """Sketches of one use of a layer's parameters, (B, …) by a key for each parameter."""
        module = self.modules[name]
        if gradient is None:
            raise UserError(
                f"the output of `{name}` has no part in the losses: they must come from the "
                "model's latest forward, without torch.compile around the observed matrices; "
                "a matrix that the model leaves unused must not be in `blocks`"
            )
        if len(source) != batch:
            if isinstance(module, nn.Embedding):  # of positions that are added to no token
                return []
            raise UserError(
                f"`{name}` saw an input of shape {tuple(source.shape)} in a batch of {batch} "
                "sequences: only matrices with the batch as first dimension can be sketched"
            )
        exact = torch.promote_types(gradient.dtype, torch.float32)
        source = source.to(exact) if source.is_floating_point() else source
        found = []
        for part in factors(module, source, gradient.to(exact)):
            if part.parameter == "bias" and self.settings.blocks != "model":
                continue
            if part.inputs is None:
                rows = self._reduce(part.outputs, f"{name}/{part.parameter}", step, squared=True)
                found.append((f"{name}/{part.parameter}", rows))
            else:
                owner = self._first[id(weight_of(module))]
                found.append((owner, self._matrix(part, owner, module, step)))
        return found

    def _matrix(self, part: Factors, owner: str, module: nn.Module, step: int) -> Tensor:
        """(B, r·r) sketch of a matrix's gradients."""
        assert part.inputs is not None
        left = self._reduce(part.inputs, f"{owner}/in", step)
        if part.outputs.is_floating_point():
            right = self._reduce(part.outputs, f"{owner}/out", step)
        else:
            width = len(weight_of(module))
            projection = self._side(f"{owner}/out", width, left, step, self.settings.rank)
            right = unit_rows(projection, part.outputs, width).to(left)
        return torch.einsum("btr,bts->brs", left, right).flatten(1)

    def _reduce(self, features: Tensor, side: str, step: int, squared: bool = False) -> Tensor:
        """(…, n) features as (…, r), or as they are where n ≤ r; of a vector r·r in place of r."""
        rank = self.settings.rank**2 if squared else self.settings.rank
        projection = self._side(side, features.shape[-1], features, step, rank)
        return features if projection is None else features @ projection

    def _side(self, side: str, width: int, like: Tensor, step: int, rank: int) -> Tensor | None:
        """(n, r) projection of one side of a matrix, or of a vector; None where n ≤ r."""
        if width <= rank:
            return None
        if self.settings.fresh:
            return self._projection(side, width, rank, step).to(like)
        key = (side, width, like.device, like.dtype)
        if key not in self._projections:
            self._projections[key] = self._projection(side, width, rank, None).to(like)
        return self._projections[key]

    def _projection(self, side: str, width: int, rank: int, step: int | None) -> Tensor:
        """(n, r) Gaussian of variance 1/r; drawn on the CPU, so equal on every device."""
        text = f"{self.settings.seed}/{step}/{side}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(width, rank, generator=generator) / rank**0.5

    def _attach(self, model: nn.Module) -> list[Any]:
        hooks = [
            model.register_forward_pre_hook(self._open),
            model.register_forward_hook(self._close),
        ]
        above = self._above.layers if self._above is not None else {}
        for name, module in {**above, **self.modules}.items():
            hooks.append(module.register_forward_hook(self._recorder(name)))
        if self._above is not None and self._above.start is not None:
            start = self._above.start
            hooks.append(start.register_forward_pre_hook(self._enter, with_kwargs=True))
        return hooks

    def _open(self, *_: Any) -> None:
        self._records, self._below = [], None
        self._reader = BackwardReader(self._project_read) if self.reading else None
        self._inside_forward = True
        self._inside_part = self._above is not None and self._above.start is None

    def _enter(self, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else options.get("hidden_states")
        if self.sharing and self._inside_forward and isinstance(hidden, Tensor):
            self._below = hidden if hidden.requires_grad else None
            self._inside_part = True

    def _close(self, *_: Any) -> None:
        # Activation checkpointing runs blocks again in the backward: nothing to record there.
        self._inside_forward = False

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        observed = name in self.modules

        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            wanted = observed or (self.sharing and self._inside_part)
            if not (self.recording and self._inside_forward and wanted):
                return
            # A router or an attention may take and return other things: the plain way serves then.
            tensors = inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
            if tensors and output.requires_grad:
                found = Record(name, module, inputs[0].detach(), output, output._version)
                if self._reader is not None:
                    self._reader.watch(found)
                else:
                    self._records.append(found)

        return record

    def _exact_parameters(self, model: nn.Module) -> list[Tensor]:
        if not self.modules:
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


def weighted_sum(weights: Tensor, losses: Tensor) -> Tensor:
    """``Σ_i a_i ℓ_i``, the plain way.

    Args:
        weights: (B,) a.
        losses: (B,) ℓ with their graph.
    """
    return (weights * losses).sum()


def _checked(losses: Tensor) -> Tensor:
    """Losses that can be sketched."""
    if losses.dim() != 1 or not losses.requires_grad:
        raise UserError(
            f"sketch needs one loss a sequence with its graph alive, got shape "
            f"{tuple(losses.shape)} and requires_grad={losses.requires_grad}"
        )
    return losses
