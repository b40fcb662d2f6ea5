"""Two lines at the top of a run: its size, and what it reads of its domains."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.experiments.forecast.domains import forecast_domains, repetition
from dograph.experiments.rank_zero import rank_zero_print
from dograph.reports.cost import training_flops
from dograph.reports.memory import parameter_count
from dograph.training.mixing_callback import MixingCallback


class OpeningLines(Callback):
    """Prints the two lines once everything is set up, before a checkpoint is restored.

    Args:
        mixing: the same trainer's callback, which stands before this one.
    """

    def __init__(self, mixing: MixingCallback) -> None:
        self.mixing = mixing

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print them, on rank zero."""
        if stage != "fit":
            return
        data, steps = self.mixing.data, trainer.max_steps
        model, collector = self.mixing.model, self.mixing.collector
        step_sequences = data.sampler.batch_size * int(trainer.accumulate_grad_batches)
        tokens = step_sequences * data.context
        flops = tokens * steps * training_flops(model, collector, data.context, steps)
        rank_zero_print(size(parameter_count(model.network), steps, tokens, flops))
        rank_zero_print(repetition(forecast_domains(data, steps, step_sequences)))


def size(parameters: int, steps: int, step_tokens: int, flops: float) -> str:
    """A sentence on how large a run is."""
    return (
        f"{parameters:,} parameters, {steps:,} steps of {step_tokens:,} tokens: "
        f"{steps * step_tokens:,} tokens, {flops:.2e} FLOPs"
    )
