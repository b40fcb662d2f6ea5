"""The domains' losses on held-out text between two training steps."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer


@torch.no_grad()
def held_out_losses(trainer: Trainer, data: DataMixer, sequences: int | None) -> Tensor:
    """(S,) float64 mean token losses in nats, as a validation's; the same on all ranks.

    Nothing is drawn at random, so that training continues as it would without.

    Args:
        trainer: its model is evaluated as it is now; every rank must call this.
        data: has the validation sequences.
        sequences: evenly spaced sequences of each domain. None: those of a validation.
    """
    model, device = trainer.lightning_module, trainer.strategy.root_device
    sums = torch.zeros(2, len(data.domains), dtype=torch.float64)
    was_training = model.training
    model.eval()
    for index, (batch, counted) in enumerate(data.validation_batches(sequences)):
        moved = Batch(*(part.to(device) for part in vars(batch).values()))
        losses = trainer.strategy.validation_step(moved, index)
        assert isinstance(losses, Tensor)
        # A subclass's validation_step may return its sequences' means, or their mean alone.
        means = losses.double().cpu().flatten(1).mean(dim=1) if losses.ndim > 1 else losses.cpu()
        added = means.double().expand(len(batch.tokens))[:counted].sum()
        sums[:, int(batch.domain[0])] += torch.tensor([added.item(), counted], dtype=torch.float64)
    model.train(was_training)
    if trainer.world_size > 1:
        total = trainer.strategy.reduce(sums.to(device), reduce_op="sum")
        assert isinstance(total, Tensor)
        sums = total.cpu()
    return sums[0] / sums[1]
