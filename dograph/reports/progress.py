"""The progress bar of a run that is measured in steps."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from dograph.evaluation.perplexity import DomainPerplexity


class StepProgressBar(RichProgressBar):
    """Lightning's rich bar without epochs, with the last validation's mean and worst loss.

    Args:
        perplexity: the same trainer's callback.
    """

    def __init__(self, perplexity: DomainPerplexity) -> None:
        super().__init__(leave=True)
        self.perplexity = perplexity

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Mean and worst validation loss in nats, once there is one."""
        losses = self.perplexity.losses.values()
        if not losses:
            return {}
        return {"mean loss": f"{sum(losses) / len(losses):.3f}", "worst": f"{max(losses):.3f}"}
