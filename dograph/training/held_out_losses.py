"""The domains' losses on held-out text between two training steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dograph.data.data_mixer import DataMixer
from dograph.training.loop import Loop


@torch.no_grad()
def held_out_losses(
    loop: Loop, model: nn.Module, data: DataMixer, sequences: int | None = None
) -> Tensor:
    """(S,) float64 mean token losses in nats, as a validation's; the same on all ranks.

    Nothing is drawn at random, so that training continues as it would without.

    Args:
        loop: every rank of it must call this.
        model: is evaluated as it is now, and trains again after it if it did.
        data: has the validation sequences.
        sequences: evenly spaced sequences of each domain. None: those of a validation.
    """
    sums = torch.zeros(2, len(data.domains), dtype=torch.float64)
    was_training = model.training
    model.eval()
    for index, (batch, counted) in enumerate(data.validation_batches(sequences)):
        losses = loop.validation_losses(batch.to(loop.device), index)
        # A subclass's validation_step may return its sequences' means, or their mean alone.
        means = losses.double().cpu().flatten(1).mean(dim=1) if losses.ndim > 1 else losses.cpu()
        added = means.double().expand(len(batch.tokens))[:counted].sum()
        sums[:, int(batch.domain[0])] += torch.tensor([added.item(), counted], dtype=torch.float64)
    model.train(was_training)
    sums = loop.total(sums)
    return sums[0] / sums[1]
