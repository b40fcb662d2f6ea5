"""How far training is: a bar in a terminal, lines in a pipe or a file."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from rich.console import Console

from dograph.evaluation.perplexity import DomainPerplexity
from dograph.terminal.progress import EVERY, Pace, duration, print_line, time_left
from dograph.terminal.screen import Screen, is_live
from dograph.training.mixing_callback import MixingCallback


def training_progress(
    perplexity: DomainPerplexity, mixing: MixingCallback, every: float
) -> ProgressBar:
    """The bar or the lines of a run, whichever stdout can show.

    Args:
        perplexity: the same trainer's callback.
        mixing: the same trainer's callback.
        every: seconds between two lines.
    """
    screen = Screen()
    if is_live(screen):
        return StepProgressBar(perplexity)
    return StepLines(perplexity, mixing, screen, every)


def last_losses(perplexity: DomainPerplexity) -> dict[str, str]:
    """The last validation's losses in nats: mean and worst over domains, before them the target's.

    Without the target's if that is even; empty before the first validation.
    """
    target, by_name = perplexity.target, perplexity.losses
    if not by_name:
        return {}
    losses = by_name.values()
    shown = {} if target.is_even else {"target": f"{target.loss(by_name):.3f}"}
    mean, worst = sum(losses) / len(losses), max(losses)
    return {**shown, "mean loss": f"{mean:.3f}", "worst": f"{worst:.3f}"}


class StepProgressBar(RichProgressBar):
    """Lightning's rich bar in optimiser steps, without epochs, with the last validation's losses.

    Args:
        perplexity: the same trainer's callback.
    """

    def __init__(self, perplexity: DomainPerplexity) -> None:
        super().__init__(leave=True)
        self.perplexity = perplexity

    @property
    def total_train_batches(self) -> int | float:
        """Optimiser steps of the run; Lightning's number of batches if it has no maximum."""
        steps = self.trainer.max_steps
        return steps if steps > 0 else super().total_train_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Shows the steps done: several micro-batches may make one."""
        done = batch_idx if trainer.max_steps <= 0 else trainer.global_step - 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, done)

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The losses, once there is a validation."""
        return dict(last_losses(self.perplexity))


class StepLines(ProgressBar):
    """Lines for a pipe or a file: the first soon, then at an interval, and every validation.

    A line says the step, the last batch's mean loss in nats a token, tokens per second since the
    line before, and how long the rest takes.

    Args:
        perplexity: the same trainer's callback.
        mixing: the same trainer's callback.
        console: where they are printed.
        every: seconds between two lines.
    """

    def __init__(
        self,
        perplexity: DomainPerplexity,
        mixing: MixingCallback,
        console: Console,
        every: float = EVERY,
    ) -> None:
        super().__init__()
        self.perplexity, self.mixing, self.console = perplexity, mixing, console
        self.every = every
        self._enabled = True
        self._pace = Pace(every=every)
        self._first_step = 0
        self._count_from = 0.0
        self._batches = 0

    def disable(self) -> None:
        """Prints nothing from now on: on ranks other than zero."""
        self._enabled = False

    def enable(self) -> None:
        """Prints again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints where training begins."""
        self._pace, self._first_step = Pace(every=self.every), trainer.global_step
        self._restart_count()
        self._print(f"Training begins: {self._steps(trainer)}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints a line if one is due."""
        self._batches += 1
        if not self._enabled or not self._pace.due():
            return
        parts = [self._steps(trainer)]
        if self.mixing.signals is not None:
            parts.append(f"loss {self.mixing.signals.sequence_loss.float().mean().item():.3f}")
        seconds = self._pace.seconds - self._count_from
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        tokens = self._batches * data.batch_size * data.context * trainer.world_size
        parts.append(f"{tokens / max(seconds, 1e-9):,.0f} tokens/s")
        done, total = trainer.global_step, trainer.max_steps
        if total > 0:
            counts = done - self._first_step, total - self._first_step
            parts.append(time_left(*counts, self._pace.seconds))
        self._print(", ".join(parts))
        self._restart_count()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Prints a line if one is due."""
        if self._enabled and self._pace.due():
            self._print(f"{self._steps(trainer)}: validation, batch {batch_idx + 1:,}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the validation's losses."""
        losses = last_losses(self.perplexity)
        if losses:
            shown = ", ".join(f"{name} {loss}" for name, loss in losses.items())
            after = duration(self._pace.seconds)
            self._print(f"{self._steps(trainer)}: validation: {shown}, after {after}")
        self._restart_count()

    def _restart_count(self) -> None:
        self._count_from, self._batches = self._pace.seconds, 0

    def _steps(self, trainer: Trainer) -> str:
        total = f" of {trainer.max_steps:,}" if trainer.max_steps > 0 else ""
        return f"step {trainer.global_step:,}{total}"

    def _print(self, text: str) -> None:
        if self._enabled:
            print_line(self.console, text)
