"""Counts the batches of a fit, where nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer


class BatchCounter(Callback):
    """Calls ``count`` after every batch, before other callbacks may save a checkpoint."""

    def __init__(self, count: Callable[[], None]) -> None:
        self.count = count

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Counts the batch."""
        self.count()

    def attach(self, trainer: Trainer) -> None:
        """Becomes the trainer's first callback, in place of an earlier fit's counter."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [self, *(each for each in callbacks if not isinstance(each, BatchCounter))]
