"""The cost model's counts beside torch's own, and bytes beside what is really held and written."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cost_counts as counts
from benchmarks.measuring import Row
from dograph.graph.window import SketchWindow
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.training.language_model import build_network

VOCABULARY, CONTEXT, BATCH = 4096, 128, 16
SLACK, EXACTNESS = 2.0, 0.03
NANO = counts.gpt2("nano", 4, 160, BATCH, VOCABULARY, CONTEXT)
MICRO = counts.gpt2("micro", 7, 320, BATCH, VOCABULARY, CONTEXT)
TINY_LLAMA = counts.llama("a tiny Llama", 3, 160, 432, BATCH, VOCABULARY, CONTEXT)


def network(model: counts.Architecture) -> nn.Module:
    """The model of transformers that an architecture describes, at its initialisation."""
    torch.manual_seed(0)
    sizes = {"vocab_size": model.vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    heads = model.width // 32
    if len(model.first) == 1:
        own = {"n_layer": model.layers, "n_embd": model.width, "n_head": heads}
        return build_network("gpt2", {**sizes, **own, "n_positions": model.context})
    own = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.width,
        "intermediate_size": model.rest[1][1],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": model.context,
    }
    return build_network("llama", {**sizes, **own})


def sequence_losses(model: nn.Module, tokens: Tensor) -> Tensor:
    """(B,) mean token losses with their graph, of (B, T + 1) tokens."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits.transpose(1, 2)
    return functional.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(dim=1)


def counted_flops(action: Callable[[], object]) -> int:
    """FLOPs of the matrix products that torch counts in an action."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def training_counted(model: counts.Architecture, batch: int = 2) -> float:
    """FLOPs a token that torch counts in a real forward and backward."""
    real = network(model)
    tokens = torch.randint(model.vocabulary, (batch, model.context + 1))
    total = counted_flops(lambda: sequence_losses(real, tokens).sum().backward())
    return total / (batch * model.context)


def sketch_counted(model: counts.Architecture, blocks: str, batch: int = 2) -> float:
    """FLOPs a token that torch counts in ``SequenceSketcher.sketch``."""
    real = network(model)
    tokens = torch.randint(model.vocabulary, (batch, model.context + 1))
    sketcher = SequenceSketcher(real, SketchSettings(blocks=blocks))
    with sdpa_kernel(SDPBackend.MATH):
        losses = sequence_losses(real, tokens)
    return counted_flops(lambda: sketcher.sketch(losses)) / (batch * model.context)


def exactly(quantity: str, predicted: float, measured: float, unit: str, note: str = "") -> Row:
    """A row of counts, which must agree within 3 %."""
    ratio = predicted / measured
    figure = f"predicted {predicted:.4g}, measured {measured:.4g} {unit}, ratio {ratio:.3f}"
    return Row(quantity, figure, "within 3 %", abs(ratio - 1) <= EXACTNESS, note)


def roughly(quantity: str, predicted: float, measured: float, unit: str, note: str = "") -> Row:
    """A row of times, which must agree within a factor of two."""
    ratio = predicted / measured
    figure = f"predicted {predicted:.3g}, measured {measured:.3g} {unit}, ratio {ratio:.2f}"
    return Row(quantity, figure, "within 2×", 1 / SLACK <= ratio <= SLACK, note)


def count_rows() -> list[Row]:
    """FLOPs and parameters against torch's counter and real models."""
    rows = []
    for model in (NANO, TINY_LLAMA):
        size = sum(parameter.numel() for parameter in network(model).parameters())
        rows.append(exactly(f"parameters, {model.name}", model.parameters, size, ""))
        predicted = counts.training_flops(model)
        note = "torch's FlopCounterMode on a real forward and backward"
        name = f"training FLOPs a token, {model.name}"
        rows.append(exactly(name, predicted, training_counted(model), "", note))
        for blocks, number in (("last", 1), ("all", model.layers)):
            predicted = counts.partial_backward_flops(model, number)
            predicted += counts.projection_flops(model, number)
            name = f"sketch FLOPs a token, {blocks} block(s), {model.name}"
            note = "partial backward and projections; FlopCounterMode on `sketch`"
            rows.append(exactly(name, predicted, sketch_counted(model, blocks), "", note))
    return rows


def byte_rows() -> list[Row]:
    """Checkpoint and window against what is really written."""
    model = network(NANO)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(VOCABULARY, (1, 9))
    sequence_losses(model, tokens).mean().backward()
    optimizer.step()
    written = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, written)
    window = SketchWindow(512)
    width = counts.sketch_numbers(NANO)
    window.add(torch.randn(600, width), torch.zeros(600, dtype=torch.int64))
    held = sum(each.untyped_storage().nbytes() for each in window.state_dict().values())
    predicted = counts.checkpoint_bytes(NANO)
    return [
        exactly("checkpoint, nano", predicted, written.tell(), "bytes", "weights and AdamW"),
        exactly("schedule's window", counts.window_bytes(512, width), held, "bytes"),
    ]
