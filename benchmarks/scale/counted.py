"""The model's counts beside those of torch's FLOP counter, real models and real files."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import Row
from benchmarks.scale import counts
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.training.network import build_network

VOCABULARY, CONTEXT, BATCH = 4096, 128, 16
NANO = counts.gpt2("nano", 4, 160, BATCH, VOCABULARY, CONTEXT)
TINY_LLAMA = counts.llama("a tiny Llama", 3, 160, 432, BATCH, VOCABULARY, CONTEXT)


def network(model: counts.Architecture) -> nn.Module:
    """Build the transformers model of an architecture of ours, heads of 32, as initialised."""
    torch.manual_seed(0)
    heads, ends = model.width // 32, {"bos_token_id": 0, "eos_token_id": 0}
    if len(model.first) == 1:
        sizes = {"n_layer": model.layers, "n_embd": model.width, "n_head": heads}
        more = {"vocab_size": model.vocabulary, "n_positions": model.context}
        return build_network("gpt2", {**sizes, **more, **ends})
    sizes = {"num_hidden_layers": model.layers, "hidden_size": model.width}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": heads}
    more = {"intermediate_size": model.rest[1][1], "max_position_embeddings": model.context}
    return build_network("llama", {**sizes, **more, **ends, "vocab_size": model.vocabulary})


def sequence_losses(real: nn.Module, tokens: Tensor) -> Tensor:
    """Mean token losses (B,) with their graph, of tokens (B, T + 1)."""
    logits = real(input_ids=tokens[:, :-1], use_cache=False).logits.transpose(1, 2)
    return functional.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(dim=1)


def counted_flops(model: counts.Architecture, blocks: str | None = None) -> float:
    """FLOPs a token that torch counts in a training step or, given ``blocks``, in a sketch."""
    real, batch = network(model), 2
    tokens = torch.randint(model.vocabulary, (batch, model.context + 1))
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH):
        if blocks is None:
            with counter:
                sequence_losses(real, tokens).sum().backward()
        else:
            sketcher = SequenceSketcher(real, SketchSettings(blocks=blocks))
            forward = sketcher.record()
            losses = sequence_losses(real, tokens)
            with counter:
                forward.sketch(losses)
    return counter.get_total_flops() / (batch * model.context)


def sketch_flops(model: counts.Architecture, blocks: str) -> int:
    """FLOPs a token that the model predicts for a sketch of the "last" or "all" blocks."""
    number = 1 if blocks == "last" else model.layers
    return counts.partial_backward_flops(model, number) + counts.projection_flops(model, number)


def exactly(quantity: str, predicted: float, measured: float, unit: str, note: str = "") -> Row:
    """Build a row of counts, which must agree within 3 %."""
    ratio = predicted / measured
    figure = f"predicted {predicted:.4g}, measured {measured:.4g}{unit}, ratio {ratio:.3f}"
    return Row(quantity, figure, "within 3 %", abs(ratio - 1) <= 0.03, note)


def rows() -> list[Row]:
    """Compare parameters, FLOPs and a checkpoint's size."""
    table = []
    for model in (NANO, TINY_LLAMA):
        size = sum(parameter.numel() for parameter in network(model).parameters())
        table.append(exactly(f"parameters, {model.name}", model.parameters, size, ""))
        predicted, note = counts.training_flops(model), "torch's FlopCounterMode on a real step"
        name = f"training FLOPs a token, {model.name}"
        table.append(exactly(name, predicted, counted_flops(model), "", note))
        for blocks in ("last", "all"):
            predicted, note = sketch_flops(model, blocks), "partial backward and projections"
            name = f"sketch FLOPs a token, blocks: {blocks}, {model.name}"
            table.append(exactly(name, predicted, counted_flops(model, blocks), "", note))
    return [*table, checkpoint_row()]


def checkpoint_row() -> Row:
    """Compare with a file of nano and AdamW's state after one step."""
    real = network(NANO)
    optimizer = torch.optim.AdamW(real.parameters())
    sequence_losses(real, torch.randint(VOCABULARY, (1, 9))).mean().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"model": real.state_dict(), "optimizer": optimizer.state_dict()}, file)
    predicted = counts.checkpoint_bytes(NANO)
    return exactly("checkpoint, nano", predicted, file.tell(), " bytes", "weights and AdamW")
