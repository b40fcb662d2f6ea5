"""What mixing reads of a training loop: of Lightning's trainer, or of a loop of one's own."""

from __future__ import annotations

import io
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn

from dograph.data.batch import Batch
from dograph.errors import check_whole

SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
"""Strategies under which a layer's parameters are there only while it works."""


class TrainedModel(Protocol):
    """What mixing needs of a model, beside its parameters.

    Attributes:
        network: the module whose layers are sketched; its forward takes tokens.
    """

    network: nn.Module

    def token_losses(self, tokens: Tensor) -> Tensor:
        """(B, T) cross-entropy in nats of each next token of (B, T + 1) int64, with its graph."""
        ...


class Loop(Protocol):
    """A training loop, the same on every rank; ``LightningLoop`` and ``OwnLoop`` are two."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Number of processes."""
        ...

    @property
    def micro_batches(self) -> int:
        """Batches of an optimiser step, on each rank."""
        ...

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Whose first group has the learning rate, and ``initial_lr`` where a schedule moves it."""
        ...

    @property
    def scaler(self) -> Any:
        """The gradient scaler, with ``get_scale``; None without."""
        ...

    @property
    def sharded(self) -> bool:
        """Whether a layer's parameters are on a rank only while the layer works."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """(ranks · B, …) of every rank's (B, …), in their order."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        ...

    def first(self, values: Tensor) -> Tensor:
        """Rank zero's values."""
        ...

    def validation_losses(self, batch: Batch, index: int) -> Tensor:
        """(B, T) token losses of a batch on the device, (B,) means, or their mean."""
        ...


class _Ranks:
    """Exchange among the processes of torch.distributed, if there are several."""

    rank: int
    world_size: int

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        raise NotImplementedError

    def gather(self, values: Tensor) -> Tensor:
        """(ranks · B, …) of every rank's (B, …), in their order."""
        if self.world_size == 1:
            return values
        own = values.detach().to(self.device).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.world_size)]
        torch.distributed.all_gather(parts, own)
        return torch.cat(parts).to(values.device)

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.world_size == 1:
            return values
        own = values.detach().to(self.device, copy=True)
        torch.distributed.all_reduce(own)
        return own.to(values.device)

    def first(self, values: Tensor) -> Tensor:
        """Rank zero's values."""
        if self.world_size == 1:
            return values
        own = values.detach().to(self.device, copy=True)
        torch.distributed.broadcast(own, src=0)
        return own.to(values.device)


class LightningLoop(_Ranks):
    """A fit of Lightning's trainer."""

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self._trainer, self._module = trainer, module
        self.rank, self.world_size = trainer.global_rank, trainer.world_size

    @property
    def micro_batches(self) -> int:
        """As the trainer accumulates now."""
        return int(self._trainer.accumulate_grad_batches)

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self._trainer.global_step

    @property
    def device(self) -> torch.device:
        """The strategy's."""
        return self._trainer.strategy.root_device

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The first."""
        return self._trainer.optimizers[0]

    @property
    def scaler(self) -> Any:
        """That of 16-mixed; None otherwise."""
        return getattr(self._trainer.precision_plugin, "scaler", None)

    @property
    def sharded(self) -> bool:
        """By the strategy."""
        return isinstance(self._trainer.strategy, SHARDED)

    def validation_losses(self, batch: Batch, index: int) -> Tensor:
        """What the module's ``validation_step`` returns."""
        return cast(Tensor, self._trainer.strategy.validation_step(batch, index))


class OwnLoop(_Ranks):
    """A loop of one's own, in plain PyTorch or Fabric; on several ranks by torch.distributed.

    Args:
        model: in training.
        optimizer: of the run.
        steps: optimiser steps of the run.
        micro_batches: batches of an optimiser step on each rank, whose losses are averaged.
        scaler: of fp16, if losses are scaled by one.
    """

    def __init__(
        self,
        model: TrainedModel,
        optimizer: torch.optim.Optimizer,
        steps: int,
        micro_batches: int = 1,
        scaler: Any = None,
    ) -> None:
        check_whole("OwnLoop.steps", steps, at_least=1)
        check_whole("OwnLoop.micro_batches", micro_batches, at_least=1)
        self._model, self.optimizer = model, optimizer
        self.steps, self.micro_batches, self.scaler = steps, micro_batches, scaler
        self.step, self.sharded = 0, False
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if distributed else 0
        self.world_size = torch.distributed.get_world_size() if distributed else 1

    @property
    def device(self) -> torch.device:
        """That of the optimiser's first parameter."""
        return cast(Tensor, self.optimizer.param_groups[0]["params"][0]).device

    def validation_losses(self, batch: Batch, index: int) -> Tensor:
        """The model's token losses."""
        return self._model.token_losses(batch.tokens)


def every_ranks(value: Any) -> list[Any]:
    """A plain value of each rank, in their order; every rank must call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    file = io.BytesIO()  # saved first: plain pickles take not all of torch's types
    torch.save(value, file)
    files: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(files, file.getvalue())
    return [torch.load(io.BytesIO(each), weights_only=True) for each in files]
