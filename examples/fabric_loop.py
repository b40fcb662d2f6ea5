"""A loop by Lightning Fabric, on any number of devices; litgpt's pretraining is one.

python examples/fabric_loop.py --text my_text
fabric run --devices 2 examples/fabric_loop.py --text my_text
"""

from __future__ import annotations

import torch
from arguments import arguments
from lightning.fabric import Fabric
from own_network import OwnNetwork, next_token_losses

import dograph


def main() -> None:
    """Train, and print the loss of every domain."""
    given = arguments(__doc__)
    fabric = Fabric()  # as `fabric run` sets it up
    fabric.seed_everything(0)
    corpus = dograph.CorpusSettings(source=given.text)
    data = dograph.DataMixer(dograph.DoGraphSchedule(), corpus, context=128)
    data.prepare_data()
    assert data.store is not None
    network = OwnNetwork(data.store.vocab_size, data.context)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    wrapped, optimizer = fabric.setup(network, optimizer)
    mixing = dograph.MixingLoop(
        data,
        network,  # itself, not its wrapper: gradients are read from its layers
        lambda tokens: next_token_losses(network, tokens),
        optimizer,
        steps=given.steps,
    )
    for batch in mixing.batches():
        fabric.backward(mixing.loss(batch, next_token_losses(wrapped, batch.tokens)))
        mixing.after_backward()
        optimizer.step()
        optimizer.zero_grad()
        mixing.after_step()
    losses = mixing.validate()
    if fabric.is_global_zero:
        print(losses)


if __name__ == "__main__":
    main()
