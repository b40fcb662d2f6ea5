"""Validation loss and perplexity of every domain, of the target, their mean and worst."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MeanMetric

from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.mixers.target import Target

logger = logging.getLogger(__name__)


def summarise(losses: dict[str, float], target: Target) -> dict[str, float]:
    """The scalars that a run is judged by, from the domains' mean token losses in nats.

    ``validation/loss/<domain>`` and ``validation/perplexity/<domain>``; the target's, the mean and
    the worst over all domains as ``validation/target_loss``, ``mean_loss`` and ``worst_loss``, and
    ``exp`` of these.
    """
    values = torch.tensor(list(losses.values()), dtype=torch.float64)
    by_name = dict(zip(losses, values, strict=True))
    aimed = torch.tensor(target.loss(losses), dtype=torch.float64)
    scores = {"target": aimed, "mean": values.mean(), "worst": values.max()}
    return {
        **{f"validation/loss/{name}": loss for name, loss in losses.items()},
        **{f"validation/perplexity/{name}": loss.exp().item() for name, loss in by_name.items()},
        **{f"validation/{name}_loss": loss.item() for name, loss in scores.items()},
        **{f"validation/{name}_perplexity": loss.exp().item() for name, loss in scores.items()},
    }


class DomainPerplexity(Callback):
    """Means of token losses by domain (torchmetrics, summed over ranks) at every validation.

    Attributes:
        losses: mean token loss in nats by domain, at the last validation.
        target: of the run; known once a validation begins.
    """

    def __init__(self) -> None:
        self.target = Target()
        self.losses: dict[str, float] = {}
        self._means: dict[str, MeanMetric] = {}
        self._left: list[int] = []
        self._step: int | None = None  # of the last validation

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets another run's losses; a resumed run's own are restored after this."""
        if stage == "fit" and trainer.global_step == 0:
            self.losses, self._step = {}, None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Ends a run with a validation at any interval; Lightning alone would not."""
        if trainer.global_step >= trainer.max_steps > 0:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns where the losses are not those of the model that the run ends with."""
        if self._step is not None and self._step != trainer.global_step:
            logger.warning(
                "the last validation was after step %d of %d, and so are the losses of "
                "DomainPerplexity: have a validation fall on the run's end",
                self._step,
                trainer.global_step,
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a mean for every domain."""
        data = getattr(trainer, "datamodule", None)
        assert isinstance(data, DataMixer)
        self.target = data.target
        self._means = {
            domain.domain: MeanMetric(nan_strategy="disable").to(pl_module.device)
            for domain in data.validation_domains
        }
        self._left = [data.validated(index) for index in range(len(self._means))]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds a batch's token losses, or their mean, without sequences that repeat."""
        sequences, left = len(batch.tokens), self._left[dataloader_idx]
        known = ((), (sequences,), (sequences, batch.tokens.shape[1] - 1))
        is_mean = isinstance(outputs, Tensor) and outputs.ndim == 0
        whole = left >= sequences or not is_mean  # else the mean is also of those that repeat
        if not isinstance(outputs, Tensor) or tuple(outputs.shape) not in known or not whole:
            raise UserError(
                f"{type(pl_module).__name__}.validation_step returned {_kind_of(outputs)}: return "
                "(B, T) token losses, (B,) means of sequences or, in one process, the batch's mean"
            )
        # A mean counts as many sequences as it is of: a domain's last batch may be smaller.
        counted = (outputs.expand(sequences) if is_mean else outputs)[:left]
        self._left[dataloader_idx] -= len(counted)
        if len(counted):
            [*self._means.values()][dataloader_idx].update(counted)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes and logs all scalars."""
        if trainer.sanity_checking:  # of some batches, by a model that is not trained yet
            return
        self.losses = {name: mean.compute().item() for name, mean in self._means.items()}
        self._step = trainer.global_step
        self._tell_mixer(trainer)
        scalars = summarise(self.losses, self.target)
        pl_module.log_dict(scalars, logger=False, rank_zero_only=True)
        for logger in trainer.loggers:
            # Lightning's own logging would put a validation one step too early.
            logger.log_metrics(scalars, step=trainer.global_step)

    def _tell_mixer(self, trainer: Trainer) -> None:
        """Gives the losses to the mixer of a run that trains."""
        data = getattr(trainer, "datamodule", None)
        if trainer.state.fn == TrainerFn.FITTING and isinstance(data, DataMixer):
            data.mixer.validated(self.losses)

    def state_dict(self) -> dict[str, Any]:
        """The last validation."""
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it."""
        self.losses = dict(state_dict["losses"])


def _kind_of(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
