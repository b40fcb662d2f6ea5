"""Our recipes and their baselines: the processes whose steps are interleaved.

`python -m benchmarks.baselines NAME SIZE` is one such process.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.interleaved import Interleaved, wait_for_go
from dograph.cli.allocator import keep_freed_memory
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store
from dograph.data.domains import DomainSequences, MixtureDataset
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import train
from dograph.training.network import build_network
from dograph.training.optimizers import warmup_cosine

RECIPES = Path(__file__).parent.parent / "recipes"
MIXERS = {
    "stratified": "uniform_gpt2.yaml",
    "dograph": "dograph_gpt2.yaml",
    "schedule": "dograph_schedule_gpt2.yaml",
    "probed": "dograph_schedule_gpt2.yaml",
}
SEQUENCES = 300
"""Maximum number of a domain's sequences that a hand-written loop reads."""
SCHEDULE_INTERVAL, SCHEDULE_MEASURE = 5, 20
"""Steps between the timed schedule's updates, and how many of the first it reads."""


@dataclass(frozen=True)
class Size:
    """A model and its batch.

    Attributes:
        layers, width, heads: as in configs/model.
        vocabulary: rows of the output layer, at least the prepared store's vocabulary.
        batch: number of sequences.
        context: tokens in a sequence.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    context: int


SIZES = {
    "nano": Size(4, 160, 5, 4096, 32, 128),
    "micro": Size(7, 320, 10, 4096, 32, 128),
    # GPT-2's own vocabulary; half the usual context, so that a step takes seconds, not a minute.
    "small": Size(12, 768, 12, 50257, 32, 64),
}


def by_recipe(name: str, size: str) -> None:
    """Train a recipe as `lightning run` does, one step each time the parent asks."""
    wanted = SIZES[size]
    overrides = [
        f"compose.model=gpt2_{size}",
        f"model.config.vocab_size={wanted.vocabulary}",
        f"data.batch_size={wanted.batch}",
        f"data.context={wanted.context}",
        "trainer.max_steps=1000000",
        "trainer.val_check_interval=1000000",
        "report.checkpoint_every=1000000",
        "report.checkpoint_minutes=1000000",
        "report.figures_every=0",
    ]
    if name in ("schedule", "probed"):
        overrides.append(f"mixer.init_args.interval={SCHEDULE_INTERVAL}")
        overrides.append(f"mixer.init_args.measure={SCHEDULE_MEASURE}")
        overrides.append("mixer.init_args.skip=0")
    if name == "probed":
        overrides.append("compose.setting=unseen")
    with tempfile.TemporaryDirectory() as folder:
        recipe = check(compose(RECIPES / MIXERS[name], overrides))
        train(recipe, prepare(recipe.corpus), Path(folder) / "run", callbacks=[Interleaved()])


def by_hand(network: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], size: Size) -> None:
    """Train in nanoGPT's loop: random crops of a memory map, AdamW, clipping, cosine schedule."""
    matrices = [p for p in network.parameters() if p.ndim >= 2]
    vectors = [p for p in network.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": 0.01},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    store = prepare(check(compose(RECIPES / "uniform_gpt2.yaml")).corpus, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        tokens = write_tokens(store, size.context, Path(folder) / "train.bin")
        batches = crops(tokens, size.batch, size.context)
        for step, (inputs, targets) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * warmup_cosine(step, warmup=40, total=1_000_000, final=0.1)
            loss_of(inputs, targets).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            wait_for_go()


def write_tokens(store: Store, context: int, path: Path) -> Path:
    """Write sequences of every domain of a store into one file of tokens, as nanoGPT reads it."""
    domains = [DomainSequences(store, each.name, "train", context) for each in store.domains]
    picks = [
        (place, index)
        for place, domain in enumerate(domains)
        for index in range(min(len(domain), SEQUENCES))
    ]
    tokens = MixtureDataset(domains).__getitems__(picks).tokens
    tokens.numpy().astype(np.uint16).tofile(path)
    return path


def crops(path: Path, batch: int, context: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random (inputs, targets), (B, T) int64 each, of a file of tokens, without end."""
    draw = torch.Generator().manual_seed(0)
    for _ in itertools.count():
        text = np.memmap(path, dtype=np.uint16, mode="r")
        starts = torch.randint(len(text) - context - 1, (batch,), generator=draw).tolist()
        rows = [torch.from_numpy(text[i : i + context + 1].astype(np.int64)) for i in starts]
        tokens = torch.stack(rows)
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def plain(size: Size, activation: str) -> None:
    """Train transformers' GPT-2 in that loop, with torch's cross-entropy as its loss."""
    sizes = {"n_layer": size.layers, "n_embd": size.width, "n_head": size.heads}
    network: Any = build_network(
        "gpt2",
        {
            **sizes,
            "vocab_size": size.vocabulary,
            "n_positions": size.context,
            "activation_function": activation,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    )

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        logits = network(input_ids=inputs, use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    by_hand(network.train(), loss_of, size)


def nano_gpt(folder: Path, size: Size) -> None:
    """Train nanoGPT's model in that loop.

    Args:
        folder: a copy of nanoGPT's repository.
        size: the model and its batch.
    """
    specification = importlib.util.spec_from_file_location("nano_gpt_model", folder / "model.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    network = module.GPT(
        module.GPTConfig(
            block_size=size.context,
            vocab_size=size.vocabulary,
            n_layer=size.layers,
            n_head=size.heads,
            n_embd=size.width,
            dropout=0.0,
            bias=True,
        )
    )
    by_hand(network.train(), lambda inputs, targets: network(inputs, targets)[1], size)


def main() -> None:
    """Train until the parent needs no more steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*MIXERS, "plain", "stock", "nanogpt"])
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--nanogpt", type=Path, help="a copy of nanoGPT's repository")
    parser.add_argument("--keep-memory", action="store_true", help="as the commands do")
    arguments = parser.parse_args()
    if arguments.keep_memory and not keep_freed_memory():
        raise SystemExit("the allocator was not set: is this glibc, without settings of its own?")
    size = SIZES[arguments.size]
    torch.manual_seed(0)
    if arguments.name in MIXERS:
        by_recipe(arguments.name, arguments.size)
    elif arguments.name == "nanogpt":
        nano_gpt(arguments.nanogpt, size)
    else:
        plain(size, "gelu_new" if arguments.name == "stock" else "gelu_pytorch_tanh")


if __name__ == "__main__":
    main()
