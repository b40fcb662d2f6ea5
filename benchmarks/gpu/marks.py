"""Where a step's time goes: marks between its parts, by CUDA events and by the host's clock."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from dograph.data.batch import Batch
from dograph.training.language_model import LanguageModel

LOADING = "next batch, to the device"
FORWARD = "forward"
LOSS = "loss, signals, loss weights"
BACKWARD = "backward"
OPTIMISER = "clipping, optimiser"
AFTER = "mixture's update, report"
PARTS = (LOADING, FORWARD, LOSS, BACKWARD, OPTIMISER, AFTER)
"""A step's parts in their order. A sketch's own backward is in ``LOSS``, that of a mixer that only
reads the training's backward in ``BACKWARD``; the hand-written loop's loss is in ``FORWARD``."""


class Mark(NamedTuple):
    """The end of a part."""

    part: str
    event: Any
    host: float


class Marks:
    """Records the ends of a step's parts while it is switched on.

    On a GPU a part's time is that between two CUDA events: what the device took, waiting for the
    host included. Elsewhere it is the host's.
    """

    def __init__(self, device: str) -> None:
        self.on = False
        self._cuda = device == "cuda"
        self._marks: list[Mark] = []

    def end(self, part: str) -> None:
        """Mark the end of a part."""
        if not self.on:
            return
        event = torch.cuda.Event(enable_timing=True) if self._cuda else None
        if event is not None:
            event.record()
        self._marks.append(Mark(part, event, time.perf_counter()))

    def take(self) -> dict[str, dict[str, float]]:
        """Median milliseconds of each part on device and host; begin anew.

        The device must have done all its work.
        """
        device, host = defaultdict(list), defaultdict(list)
        for before, after in zip(self._marks, self._marks[1:], strict=False):
            host[after.part].append(1000 * (after.host - before.host))
            if self._cuda:
                device[after.part].append(before.event.elapsed_time(after.event))
        self._marks = []
        times = device if self._cuda else host
        return {
            part: {
                "milliseconds": statistics.median(times[part]),
                "mean": statistics.fmean(times[part]),
                "host": statistics.median(host[part]),
            }
            for part in PARTS
            if part in times
        }


class MarkedRun(Callback):
    """Marks the parts of a run's steps; comes after the recipe's own callbacks."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put marks around what the mixing callback does with a batch's losses."""
        assert isinstance(pl_module, LanguageModel)
        reduce_loss = pl_module.reduce_loss

        def marked(batch: Batch, token_losses: Tensor) -> Tensor:
            self.marks.end(FORWARD)
            loss = reduce_loss(batch, token_losses)
            self.marks.end(LOSS)
            return loss

        pl_module.reduce_loss = marked
        optimizer = pl_module.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        optimizer.register_step_post_hook(lambda *_: self.marks.end(OPTIMISER))

    def on_train_batch_start(self, *_: Any) -> None:
        self.marks.end(LOADING)

    def on_after_backward(self, *_: Any) -> None:
        self.marks.end(BACKWARD)

    def on_train_batch_end(self, *_: Any) -> None:
        self.marks.end(AFTER)
