"""Stopping a run by a signal without losing anything."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console


class Interrupted(Exception):  # noqa: N818  (an event, not an error)
    """Training stopped on a signal; its checkpoint is saved."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM finishes the optimiser step, saves a checkpoint and stops.

    A second signal stops at once. Every rank stops at the same step, whichever got the signal.

    Args:
        folder: where the checkpoint goes.
    """

    def __init__(self, folder: Path) -> None:
        self.checkpoint = folder / "interrupted.ckpt"
        self.received = False
        self._before: dict[signal.Signals, Any] = {}
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals."""
        self._step = trainer.global_step
        self.checkpoint = trainer.strategy.broadcast(self.checkpoint)
        for kind in (signal.SIGINT, signal.SIGTERM):
            self._before[kind] = signal.signal(kind, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        Console(stderr=True).print(
            "\nStopping after this step to save a checkpoint (again to stop at once)."
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves and stops once a step is whole; a run at its last step just ends."""
        if trainer.global_step == self._step:  # more micro-batches to come
            return
        self._step = trainer.global_step
        stop = self.received
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
            raise Interrupted(self.checkpoint)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Gives the signals back; Lightning does not call ``teardown`` after an exception."""
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back."""
        self._restore()

    def _restore(self) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        self._before = {}
