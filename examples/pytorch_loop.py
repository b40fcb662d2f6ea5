"""A plain PyTorch loop that mixes, saves and resumes.

python examples/pytorch_loop.py --text my_text --steps 60
python examples/pytorch_loop.py --text my_text --steps 100    # continues; see LAST
"""

from __future__ import annotations

from pathlib import Path

import torch
from arguments import arguments
from own_network import OwnNetwork, next_token_losses

import dograph

LAST = Path("pytorch_loop.pt")


def main() -> None:
    """Train from the last checkpoint, if there is one, and print the loss of every domain."""
    given = arguments(__doc__)
    torch.manual_seed(0)
    corpus = dograph.CorpusSettings(source=given.text)
    data = dograph.DataMixer(dograph.DoGraphSchedule(), corpus, context=128)
    data.prepare_data()
    assert data.store is not None
    network = OwnNetwork(data.store.vocab_size, data.context)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    mixing = dograph.MixingLoop(
        data,
        network,
        lambda tokens: next_token_losses(network, tokens),
        optimizer,
        steps=given.steps,
    )
    if LAST.exists():
        saved = torch.load(LAST, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        mixing.load_state_dict(saved["mixing"])
    for batch in mixing.batches():
        loss = mixing.loss(batch, next_token_losses(network, batch.tokens))
        loss.backward()
        mixing.after_backward()
        optimizer.step()
        optimizer.zero_grad()
        mixing.after_step()
    parts = {"network": network, "optimizer": optimizer, "mixing": mixing}
    torch.save({name: part.state_dict() for name, part in parts.items()}, LAST)
    print(mixing.validate())


if __name__ == "__main__":
    main()
