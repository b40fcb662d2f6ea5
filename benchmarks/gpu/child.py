"""One measured process: a recipe trained as `lightning run` does, or a hand-written loop.

The loop is nanoGPT's (github.com/karpathy/nanoGPT, train.py): random crops of a memory map, the
whole model and its loss compiled together, autocast, fused AdamW, clipping, a cosine schedule, the
next batch on its way while the device works. As there, attention's kernel is told that it is
causal: compiled whole, transformers' GPT-2 would hand it a mask instead, and miss the quickest one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionMaskInterface

from benchmarks.baselines import crops, write_tokens
from benchmarks.gpu.marks import BACKWARD, FORWARD, LOADING, OPTIMISER, MarkedRun, Marks
from benchmarks.gpu.segments import SegmentedRun, Segments
from benchmarks.gpu.size import LOOP, RECIPES, RUNS, SIZES, Size, mixer_overrides, overrides
from dograph.cli.allocator import keep_freed_memory
from dograph.data.corpus.prepare import prepare
from dograph.experiments.recipe.check import Recipe, check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import build_model, train
from dograph.training.optimizers import warmup_cosine

LOGGED = 50
"""Steps between two readings of the loop's loss, as many as the recipe's report has."""


class WithLoss(nn.Module):
    """A language model and its loss, so that both are compiled together."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of (B, T) inputs."""
        logits = self.network(input_ids=inputs, use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def by_recipe(recipe: Recipe, segments: Segments, folder: Path) -> None:
    """Train a recipe as `lightning run` does, in segments."""
    keep_freed_memory()
    if segments.size.steps % recipe.mixer.update_every:
        raise ValueError(f"a segment of {segments.size.steps} steps holds no whole intervals")
    callbacks = [MarkedRun(segments.marks), SegmentedRun(segments)]
    train(recipe, prepare(recipe.corpus, progress=False), folder / "run", callbacks=callbacks)


def by_hand(recipe: Recipe, segments: Segments, folder: Path) -> None:
    """Train the recipe's model by hand, in segments."""
    size, device, marks = segments.size, segments.device, segments.marks
    AttentionMaskInterface.register("sdpa", lambda *_, **__: None)
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    store = prepare(recipe.corpus, progress=False)
    built = build_model(recipe, store, size.context).network.to(device).train()
    model: Any = torch.compile(WithLoss(built)) if size.compiled else WithLoss(built)
    optimizer = _adamw(model)
    tokens = crops(
        write_tokens(store, size.context, folder / "train.bin"), size.batch, size.context
    )
    inputs, targets = _to_device(next(tokens), device)
    for step in range(10**9):
        for group in optimizer.param_groups:
            group["lr"] = 6e-4 * warmup_cosine(step, warmup=2000, total=10**6, final=0.1)
        with torch.autocast(device, torch.bfloat16, enabled=size.bf16):
            loss = model(inputs, targets)
        marks.end(FORWARD)
        inputs, targets = _to_device(next(tokens), device)
        marks.end(LOADING)
        loss.backward()
        marks.end(BACKWARD)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.end(OPTIMISER)
        if step % LOGGED == 0 and not loss.isfinite().item():
            raise ArithmeticError(f"the loss at step {step} is {loss.item()}")
        segments.step_done()


def _adamw(model: nn.Module) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)


def _to_device(batch: tuple[Tensor, Tensor], device: str) -> tuple[Tensor, Tensor]:
    if device != "cuda":
        return batch
    inputs, targets = (part.pin_memory().to(device, non_blocking=True) for part in batch)
    return inputs, targets


def recipe_of(name: str, size: Size, device: str, store: str | None) -> Recipe:
    """The checked recipe of a measured process; the loop takes its model from the first."""
    path = RECIPES / RUNS.get(name, RUNS["run"])
    return check(compose(path, [*overrides(size, device, store), *mixer_overrides(name, size)]))


def main() -> None:
    """Train until the parent needs no more segments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*RUNS, LOOP])
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the process may write")
    parser.add_argument("--store", help="a prepared corpus")
    given = parser.parse_args()
    size = SIZES[given.size]
    recipe = recipe_of(given.name, size, given.device, given.store)
    segments = Segments(size, given.device, Marks(given.device))
    train_it = by_hand if given.name == LOOP else by_recipe
    train_it(recipe, segments, given.folder)


if __name__ == "__main__":
    main()
