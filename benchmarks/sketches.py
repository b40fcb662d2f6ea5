"""Sketches against per-sequence gradient loops, interleaved.

All compute the gradient of every sequence's loss with respect to the same matrices of GPT-2 nano;
the sketch uses a forward that is already done.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.measuring import Row
from dograph.signals.sketches import SequenceSketcher, SketchSettings

VOCABULARY, CONTEXT = 4096, 128


def nano() -> GPT2LMHeadModel:
    """Build GPT-2 with 4 layers of width 160."""
    torch.manual_seed(0)
    sizes = {"n_embd": 160, "n_layer": 4, "n_head": 5, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, **sizes)
    return GPT2LMHeadModel(config).eval()


def sequence_losses(model: GPT2LMHeadModel, tokens: Tensor) -> Tensor:
    """Return the mean token loss (B,) of each sequence, with its graph."""
    logits = model(tokens[:, :-1]).logits.transpose(1, 2)
    return torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(1)


def milliseconds(action: Callable[[], object]) -> float:
    """Return the milliseconds of one call."""
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def times(blocks: str, batch: int, repeats: int) -> tuple[float, float, float]:
    """Return the median milliseconds of a sketch and of two loops for the same matrices.

    The first loop runs one backward a sequence through the batch's graph. The second runs each
    sequence alone, forward included.
    """
    model = nano()
    tokens = torch.randint(VOCABULARY, (batch, CONTEXT + 1))
    sketcher = SequenceSketcher(model, SketchSettings(blocks=blocks))
    names = list(sketcher.modules)
    exact = SequenceSketcher(model, SketchSettings(blocks=names, exact=True))

    def alone() -> None:
        for sequence in tokens:
            exact.record().sketch(sequence_losses(model, sequence[None]))

    rounds: list[tuple[float, float, float]] = []
    for _ in range(repeats + 1):
        forward = sketcher.record()
        losses = sequence_losses(model, tokens)
        rounds.append(
            (
                milliseconds(functools.partial(forward.sketch, losses)),
                milliseconds(functools.partial(exact.record().sketch, losses)),
                milliseconds(alone),
            )
        )
    sketch, shared, separate = zip(*rounds[1:], strict=True)
    return statistics.median(sketch), statistics.median(shared), statistics.median(separate)


def inner_product_error(draws: int) -> tuple[float, float, float]:
    """Return inner products' bias, in standard errors and mean norms, and one draw's error."""
    model = nano()
    tokens = torch.randint(VOCABULARY, (6, CONTEXT + 1))

    def products(settings: SketchSettings) -> Tensor:
        sketcher = SequenceSketcher(model, settings)
        forward = sketcher.record()
        sketch = forward.sketch(sequence_losses(model, tokens)).double()
        sketcher.detach()
        return sketch @ sketch.T

    exact = products(SketchSettings(exact=True))
    norm = exact.diagonal().mean()
    sketched = torch.stack([products(SketchSettings(seed=seed)) for seed in range(draws)])
    bias, deviation = sketched.mean(dim=0) - exact, sketched.std(dim=0)
    in_errors = (bias / (deviation / math.sqrt(draws))).square().mean().sqrt()
    return float(in_errors), float(bias.abs().max() / norm), float(deviation.mean() / norm)


def rows(batch: int = 32, repeats: int = 2, draws: int = 60) -> list[Row]:
    """Compare sketches with loops for the last and all blocks; measure inner products' errors."""
    table = []
    for blocks in ("last", "all"):
        sketch, shared, separate = times(blocks, batch, repeats)
        for what, loop in (("one graph", shared), ("a graph each", separate)):
            note = f"{sketch:.0f} and {loop:.0f} ms, {batch} × {CONTEXT} tokens"
            quantity = f"speed of a sketch, blocks: {blocks}, over a backward a sequence, {what}"
            table.append(Row(quantity, f"{loop / sketch:.1f}×", "", None, note))
    in_errors, bias, deviation = inner_product_error(draws)
    table += [
        Row(
            "root mean square bias of inner products, in standard errors",
            f"{in_errors:.2f}",
            "",
            None,
            f"1 if unbiased; largest {bias:.3f} of the mean norm² over {draws} draws",
        ),
        Row("standard deviation of one draw, of the mean norm²", f"{deviation:.3f}"),
    ]
    return table
