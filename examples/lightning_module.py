"""Your own LightningModule: what is marked with + is added for mixing.

python examples/lightning_module.py --text my_text
"""

from __future__ import annotations

import torch
from arguments import arguments
from lightning.pytorch import LightningModule, Trainer, seed_everything
from own_network import OwnNetwork, next_token_losses
from torch import Tensor

import dograph  # +


class Own(LightningModule):
    """A language model that was there before dograph."""

    def __init__(self, vocabulary: int, context: int) -> None:
        super().__init__()
        self.network = OwnNetwork(vocabulary, context)

    def token_losses(self, tokens: Tensor) -> Tensor:  # +
        """(B, T) losses of (B, T + 1) tokens."""
        return next_token_losses(self.network, tokens)  # +

    def training_step(self, batch: dograph.Batch, batch_idx: int) -> Tensor:
        """The batch's loss, as the mixer weighs it."""
        return self.reduce_loss(batch, self.token_losses(batch.tokens))  # +

    def validation_step(
        self, batch: dograph.Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Token losses, for DomainPerplexity."""
        return self.token_losses(batch.tokens)  # +

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Yours."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    """Train, and print the loss of every domain."""
    given = arguments(__doc__)
    seed_everything(0, workers=True)
    corpus = dograph.CorpusSettings(source=given.text)  # +
    data = dograph.DataMixer(dograph.DoGraphSchedule(), corpus, context=128)  # +
    data.prepare_data()
    assert data.store is not None
    perplexity = dograph.DomainPerplexity()
    trainer = Trainer(
        max_steps=given.steps,
        callbacks=[dograph.MixingCallback(), perplexity],  # +
        use_distributed_sampler=False,  # +
        logger=False,
    )
    trainer.fit(Own(data.store.vocab_size, data.context), datamodule=data)  # +
    print(perplexity.losses)


if __name__ == "__main__":
    main()
