"""Writes checkpoints: whole or not at all, in time, and on a signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.errors import UserError, find_refusal
from dograph.files.atomic import flush
from dograph.files.run_dir import CHECKPOINTS
from dograph.terminal.screen import Screen
from dograph.training.checkpoint_reader import newest_checkpoints, read_checkpoint, steps_done
from dograph.training.loop import every_ranks

PARTIAL = ".partial"
RESTORING = (LookupError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError)
"""Errors that content of a wrong shape or type makes where it is restored."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals on which a run saves a checkpoint and stops; schedulers send the last ahead of time."""


class Interrupted(Exception):  # noqa: N818  (an event, not an error)
    """Training stopped on a signal; its last checkpoint is saved.

    ``finished`` tells whether the run had done all its steps by then. A swarm has no checkpoint of
    its own: each of its runs has.
    """

    def __init__(self, checkpoint: Path | None, finished: bool = False) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint, self.finished = checkpoint, finished


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk and moves it there in one step.

    Reading checks every byte and executes no code.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Saves a checkpoint whole; or raises UserError, where it cannot, and leaves nothing."""
        path = Path(path)
        beside = path.with_name(path.name + PARTIAL)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            flush(path.parent)
        except (OSError, RuntimeError) as error:  # torch wraps what its file raises
            with suppress(OSError):
                beside.unlink()
            refused = find_refusal(error)
            if refused is None:
                raise
            then = "run the same command again: it resumes from the checkpoint before"
            reason = replace(refused, file=None).message(path, None, then)
            raise UserError(f"the checkpoint cannot be written: {reason}") from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Loads a checkpoint by ``read_checkpoint``."""
        return read_checkpoint(Path(path), map_location)


class CheckpointSaver(Callback):
    """Saves a checkpoint every so many steps and minutes, and on a signal, upon which it stops.

    A step at which a validation is due is saved after that validation, so that a run
    resumed from there need not repeat it. A signal stops a validation within a batch, and a resumed
    run begins it again; only the validation after the last step is finished, and the run with it.
    On a second signal the run stops at once. Every rank saves and stops at the same step.

    Args:
        folder: where checkpoints go.
        every: optimiser steps between two, ≥ 1.
        minutes: between two, > 0.
        kept: newest checkpoints that stay, ≥ 1.

    Attributes:
        received: whether a signal asks to stop.
        began: whether a batch has been trained on: the checkpoint resumed from fits.
        resumes_from: the checkpoint that this rank is about to resume from; None without one.
    """

    def __init__(self, folder: Path, every: int, minutes: float, kept: int) -> None:
        self.folder, self.every, self.minutes, self.kept = folder, every, minutes, kept
        self.received = self.began = False
        self.resumes_from: Path | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._step = 0
        self._due = self._whole = self._last = False
        self._saved_at = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses ranks that resume from different steps, which would wait for each other."""
        own = None if self.resumes_from is None else self.resumes_from.name
        chosen = every_ranks(own) if stage == "fit" else [own]
        others = {rank: name for rank, name in enumerate(chosen) if name != chosen[0]}
        if others:
            rank, name = next(iter(others.items()))
            raise UserError(
                f"rank 0 resumes from {chosen[0] or 'no checkpoint'}, rank {rank} from "
                f"{name or 'none'}: set runs to a folder that all machines share, or copy rank 0's "
                f"{self.folder} to the others"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals; refuses a checkpoint whose parts are of another step."""
        if trainer.ckpt_path is not None:
            said = steps_done(Path(trainer.ckpt_path))
            if said != trainer.global_step:
                raise UserError(f"it says step {said}, but its parts are of {trainer.global_step}")
        self._step, self._due, self._saved_at = trainer.global_step, False, time.monotonic()
        self._whole, self._last = True, False
        self.folder = trainer.strategy.broadcast(self.folder)
        for kind in STOPPING:
            self._before[kind] = signal.signal(kind, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        ends = "the last validation" if self._last else "this batch to save a checkpoint"
        Screen(stderr=True).print(f"\nStopping after {ends} (again to stop at once).")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets what an interrupted validation left in Lightning's counts."""
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.reset()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stops a validation on a signal, between two steps of which another follows.

        Lightning resumes in a validation whose first batch has begun and not ended.
        """
        if self._whole and not self._last and self.asked_to_stop(trainer):
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the checkpoint that was due with this validation."""
        if self._due:
            self._save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves once a step is whole; a run at its last step just ends."""
        self.began = True
        self._whole = trainer.global_step != self._step
        if not self._whole:  # more micro-batches to come
            return
        self._step = trainer.global_step
        self._last = self._step >= trainer.max_steps
        due = self._is_due(trainer) or self._due
        self._due = due and not self._last
        if self._due and not validates_after(trainer):
            self._save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        late = time.monotonic() - self._saved_at >= 60 * self.minutes
        return _on_any_rank(trainer, self.received or late) or self._step % self.every == 0

    def _save(self, trainer: Trainer) -> None:
        self._due, self._saved_at = False, time.monotonic()
        path = self.folder / f"step={self._step}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        if trainer.is_global_zero:
            for old in newest_checkpoints(self.folder.parent)[self.kept :]:
                if old != path:
                    trainer.strategy.remove_checkpoint(old)
        if self.asked_to_stop(trainer):
            raise Interrupted(path)

    def asked_to_stop(self, trainer: Trainer) -> bool:
        """Whether any rank has got a signal."""
        return _on_any_rank(trainer, self.received)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restores the signal handlers; Lightning does not call ``on_train_end`` then."""
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the signal handlers.

        They are Lightning's own, which it restores next, before ``teardown``: put back then, they
        would outlive the run, and ignore SIGTERM.
        """
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        self._before = {}


def _on_any_rank(trainer: Trainer, flag: bool) -> bool:
    """Whether a flag is set on any rank: clocks and signals differ among them."""
    if trainer.world_size == 1:
        return flag
    return trainer.strategy.reduce_boolean_decision(flag, all=False)


@contextmanager
def restore_errors(checkpoint: Path | None, saver: CheckpointSaver) -> Iterator[None]:
    """Turns errors up to the first batch after a resume into a UserError that names the file.

    The checkpoint may be another model's, another version's, or untrusted.
    """
    try:
        yield
    except UserError as error:
        converted = error.__cause__ is not None  # by code that knew what had happened
        if checkpoint is None or saver.began or converted or str(checkpoint) in str(error):
            raise
        raise UserError(f"{checkpoint}: {error}") from error
    except RESTORING as error:
        if checkpoint is None or saver.began:
            raise
        raise UserError(
            f"{checkpoint}: cannot be resumed ({type(error).__name__}: {error}): another recipe or "
            "other code made it; resume with those, or start a run under another name"
        ) from error


def validates_after(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that has just been trained on."""
    every = trainer.val_check_batch
    has_text = sum(trainer.num_val_batches) > 0  # of a corpus without held-out text, none
    if not trainer.enable_validation or not has_text or not isinstance(every, int):
        return False
    return (trainer.fit_loop.total_batch_idx + 1) % every == 0


def remove_partial(folder: Path) -> None:
    """Removes checkpoints that a killed process left half written."""
    for path in (folder / CHECKPOINTS).glob(f"*{PARTIAL}"):
        path.unlink(missing_ok=True)  # another rank may have been quicker
