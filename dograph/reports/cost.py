"""The cost of training in floating-point operations."""

from __future__ import annotations

from typing import Any

from torch import nn

from dograph.signals.batch_signals import (
    AlignmentProbe,
    EmbeddingGradients,
    HeldOutLoss,
    Probe,
    Request,
    Sketch,
)
from dograph.signals.layers import MATRICES, weight_of
from dograph.signals.sketches import SequenceSketcher
from dograph.training.language_model import LanguageModel
from dograph.training.signal_collector import SignalCollector


def matrices(network: nn.Module) -> dict[str, nn.Module]:
    """The matrices that every token is multiplied by, with the output layer, by name."""
    return {name: each for name, each in network.named_modules() if isinstance(each, MATRICES)}


def attention_flops(network: Any, context: int, layers: int | None = None) -> int:
    """FLOPs per token of attention's two products, ``4 L T d``; masked entries count, too.

    L are the given layers, by default all of the network's, and T the context's tokens.
    """
    config = network.config
    layers = int(config.num_hidden_layers) if layers is None else layers
    return 4 * layers * context * int(config.hidden_size)


def forward_flops(network: Any, context: int) -> int:
    """FLOPs per token of a forward pass: ``2 N + 4 L T d`` (PaLM, arXiv 2204.02311, appendix B).

    N are the entries of all matrices, the output layer's with them, embeddings not. A backward
    pass takes twice as many. ``network`` is a model of transformers, ``context`` T tokens.
    """
    entries = sum(weight_of(module).numel() for module in matrices(network).values())
    return 2 * entries + attention_flops(network, context)


def sketch_flops(network: Any, sketcher: SequenceSketcher, context: int) -> int:
    """FLOPs per token of sketches: a backward to the first observed matrix, then projections."""
    weights = {name: weight_of(module) for name, module in matrices(network).items()}
    names = list(weights)
    observed = [name for name in names if name in sketcher.modules]
    passed = sum(weights[name].numel() for name in names[names.index(observed[0]) + 1 :])
    blocks = {name.rsplit(".", 2)[0] for name in observed if name.count(".") > 1}
    flops = 2 * passed + 2 * attention_flops(network, context, len(blocks))
    for name in observed:
        widths = weights[name].shape
        kept = [min(width, sketcher.settings.rank) for width in widths]
        flops += sum(2 * width * rank for width, rank in zip(widths, kept, strict=True))
        flops += 2 * kept[0] * kept[1]
    return flops


def embedding_flops(network: Any, rank: int) -> int:
    """FLOPs per token to project the gradient at its embedding to ``rank`` numbers."""
    width = int(network.get_input_embeddings().weight.shape[1])
    return 2 * width * rank if width > rank else 0


def inputs_backward_flops(network: Any, context: int) -> int:
    """FLOPs per token of a backward down to the embeddings, without the weights' gradients."""
    return forward_flops(network, context) + attention_flops(network, context)


def training_flops(
    model: LanguageModel, collector: SignalCollector | None, context: int, steps: int = 1
) -> float:
    """FLOPs per trained token, with the signals that the mixer needs.

    An estimate of matrix products alone: norms, softmax, the optimiser, validation, K-means, sums
    of gradients and the solver are left out.

    Args:
        model: the model in training.
        collector: collector of the mixer's signals. None: plain training.
        context: T tokens.
        steps: optimiser steps of the run.
    """
    forward = forward_flops(model.network, context)
    flops: float = 3 * forward
    if collector is None:
        return flops
    if collector.reference is not None:
        flops += forward_flops(collector.reference.network, context)
    mixer, probe = collector.mixer, float(forward)
    if collector.gradients is not None:
        flops += 3 * forward
        probe += 2 * forward
    if mixer.request(Sketch):
        sketch = _sketch_flops(model, collector, context)
        flops += _share(collector, Sketch, steps) * sketch
        probe += sketch
    if collector.embeddings is not None:
        projection = embedding_flops(model.network, collector.embeddings.rank)
        flops += _share(collector, EmbeddingGradients, steps) * projection
        probe += inputs_backward_flops(model.network, context) + projection
    measured = _measured_sequences(collector) * collector.trainer.world_size
    flops += _share(collector, HeldOutLoss, steps) * measured / _step_sequences(collector) * forward
    request = mixer.request(Probe)
    if request is None:
        return flops
    # Every rank makes the whole probe, once an optimiser step.
    probed = sum(map(mixer.probes, mixer.domains))
    if isinstance(request, AlignmentProbe):
        probed += int(mixer.trained.sum())
        probe += 2 * forward
    sequences = request.per_update * (min(probed, 1) if request.by_target else probed)
    whole = sequences * collector.trainer.world_size / _step_sequences(collector)
    return flops + _share(collector, Probe, steps) * whole * probe


def _step_sequences(collector: SignalCollector) -> int:
    """Sequences of an optimiser step, of all ranks."""
    accumulated = int(collector.trainer.accumulate_grad_batches)
    return collector.data.sampler.batch_size * accumulated


def _measured_sequences(collector: SignalCollector) -> int:
    """Held-out sequences whose losses a rank measures at once; 0 where no mixer asks."""
    request, data = collector.mixer.request(HeldOutLoss), collector.data
    if request is None:
        return 0
    each = range(len(data.validation_domains))
    return sum(data.validated(index, request.sequences) for index in each)


def _sketch_flops(model: LanguageModel, collector: SignalCollector, context: int) -> float:
    """FLOPs per token of the mixer's sketches."""
    assert collector.sketcher is not None
    if collector.sketcher.settings.exact:  # a backward of the whole batch for every sequence
        return 2 * forward_flops(model.network, context) * collector.data.batch_size
    return sketch_flops(model.network, collector.sketcher, context)


def _share(collector: SignalCollector, kind: type[Request], steps: int) -> float:
    """Share of the run's steps at which the mixer is given a signal."""
    return sum(collector.mixer.needs_at(step, kind) for step in range(steps)) / max(steps, 1)
