"""Losses and gradients that are not finite: skipped, counted, and stopped before they are many."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.files.atomic import write_json
from dograph.files.run_dir import NON_FINITE
from dograph.training.language_model import LanguageModel

CHECK_EVERY = 10
"""Steps between two checks of a counter on a GPU; each waits for the device."""


class NonFiniteGuard(Callback):
    """Stops a run once more than ``limit`` steps in a row were skipped; keeps their documents.

    The model itself skips a step whose gradients are not finite (``LanguageModel.skipped``).
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._steps: deque[tuple[int, list[Batch]]] = deque(maxlen=limit + CHECK_EVERY)
        self._batches: list[Batch] = []  # of the optimiser step under way
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count where training does."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the counter where it costs nothing, and now and then where it does."""
        assert isinstance(pl_module, LanguageModel)
        self._batches.append(batch)
        if trainer.global_step == self._step:  # more micro-batches to come
            return
        self._step = trainer.global_step
        self._steps.append((self._step, self._batches))
        self._batches = []
        if pl_module.skipped.is_cuda and trainer.global_step % CHECK_EVERY:
            return
        total, in_a_row = (int(count) for count in pl_module.skipped.tolist())
        if in_a_row > self.limit:
            self._write(trainer, in_a_row)
            raise UserError(
                f"{in_a_row} optimiser steps in a row had losses or gradients that are not finite "
                f"({total} in all were skipped): their documents are in "
                f"{self.folder / NON_FINITE}; look at them, or lower model.learning_rate and "
                "run again"
            )

    def _write(self, trainer: Trainer, in_a_row: int) -> None:
        data = getattr(trainer, "datamodule", None)
        assert isinstance(data, DataMixer)
        first = trainer.global_step - in_a_row
        steps = {
            str(step): [document for batch in batches for document in _documents(batch, data)]
            for step, batches in self._steps
            if step > first
        }
        rank = trainer.global_rank
        name = f"rank_{rank}_{NON_FINITE}" if rank else NON_FINITE
        write_json(self.folder / name, {"rank": rank, "steps": steps})


def _documents(batch: Batch, data: DataMixer) -> list[dict[str, Any]]:
    """Domain and the first and last document, in the order of the store, of each sequence."""
    pairs = zip(batch.domain.tolist(), batch.documents.tolist(), strict=True)
    return [{"domain": data.domains[domain], "documents": ends} for domain, ends in pairs]
