"""The cost of training in floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from dograph.data.data_mixer import DataMixer
from dograph.mixers.base import BaseMixer
from dograph.signals.batch_signals import (
    AlignmentProbe,
    DomainGradients,
    EmbeddingGradients,
    HeldOutLoss,
    Probe,
    Request,
    Sketch,
)
from dograph.signals.layers import MATRICES, weight_of
from dograph.signals.sketches import SequenceSketcher
from dograph.training.loop import TrainedModel
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


@dataclass(frozen=True)
class SignalSetting:
    """What the FLOPs of a mixer's signals follow from.

    Attributes:
        mixer: says which signals it needs, and when; set up, if it probes domains.
        sketcher: of the model in training; None where nothing is sketched.
        reference: the reference model; None where no excess loss is needed.
        device_sequences: of a micro-batch on one device.
        step_sequences: of an optimiser step on all devices.
        devices: number of devices.
        measured: held-out sequences whose losses a device measures at once.
    """

    mixer: BaseMixer
    sketcher: SequenceSketcher | None
    reference: Any | None
    device_sequences: int
    step_sequences: int
    devices: int = 1
    measured: int = 0

    @classmethod
    def of(cls, collector: SignalCollector) -> SignalSetting:
        """That of a run."""
        data, loop = collector.data, collector.loop
        return cls(
            collector.mixer,
            collector.sketcher,
            collector.reference.network if collector.reference is not None else None,
            data.batch_size,
            data.sampler.batch_size * loop.micro_batches,
            loop.world_size,
            measured_sequences(collector.mixer, data),
        )

    def share(self, kind: type[Request], steps: int) -> float:
        """Share of the run's steps at which the mixer is given a signal."""
        return sum(self.mixer.needs_at(step, kind) for step in range(steps)) / max(steps, 1)


def training_flops(
    model: TrainedModel, collector: SignalCollector | None, context: int, steps: int = 1
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
    if collector is None:
        return 3 * forward_flops(model.network, context)
    return flops_with_signals(model.network, SignalSetting.of(collector), context, steps)


def flops_with_signals(network: Any, setting: SignalSetting, context: int, steps: int) -> float:
    """FLOPs per trained token, for ``training_flops`` or for a run that has not begun."""
    forward, mixer = forward_flops(network, context), setting.mixer
    flops, probe = float(3 * forward), float(forward)
    if setting.reference is not None:
        flops += forward_flops(setting.reference, context)
    if mixer.request(DomainGradients):
        flops += 3 * forward
        probe += 2 * forward
    if mixer.request(Sketch):
        sketch = _sketch_flops(network, setting, context)
        flops += setting.share(Sketch, steps) * sketch
        probe += sketch
    embedding = mixer.request(EmbeddingGradients)
    if embedding is not None:
        projection = embedding_flops(network, embedding.rank)
        flops += setting.share(EmbeddingGradients, steps) * projection
        probe += inputs_backward_flops(network, context) + projection
    measured = setting.measured * setting.devices / setting.step_sequences
    flops += setting.share(HeldOutLoss, steps) * measured * forward
    request = mixer.request(Probe)
    if request is None:
        return flops
    # Every rank makes the whole probe, once an optimiser step.
    probed = sum(map(mixer.probes, mixer.domains))
    if isinstance(request, AlignmentProbe):
        probed += int(mixer.trained.sum())
        probe += 2 * forward
    sequences = request.per_update * (min(probed, 1) if request.by_target else probed)
    whole = sequences * setting.devices / setting.step_sequences
    return flops + setting.share(Probe, steps) * whole * probe


def measured_sequences(mixer: BaseMixer, data: DataMixer) -> int:
    """Held-out sequences whose losses a rank measures at once; 0 where no mixer asks."""
    request = mixer.request(HeldOutLoss)
    if request is None:
        return 0
    each = range(len(data.validation_domains))
    return sum(data.validated(index, request.sequences) for index in each)


def _sketch_flops(network: Any, setting: SignalSetting, context: int) -> float:
    """FLOPs per token of the mixer's sketches."""
    assert setting.sketcher is not None
    if setting.sketcher.settings.exact:  # a backward of the whole batch for every sequence
        return 2 * forward_flops(network, context) * setting.device_sequences
    return sketch_flops(network, setting.sketcher, context)
