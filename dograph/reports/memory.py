"""The memory that training takes on a device, and the size of its checkpoints: estimates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dograph.reports.cost import matrices
from dograph.signals.layers import transformer_blocks, weight_of

MOMENTS = 2
"""Numbers that Adam keeps of every parameter."""
SINGLE = 4
"""Bytes of a float32 number."""


@dataclass(frozen=True)
class Precision:
    """Bytes of a number: as a parameter (its gradient and moments alike), and in the forward."""

    parameter: int = SINGLE
    activation: int = SINGLE

    @classmethod
    def parse(cls, name: object) -> Precision:
        """That of ``trainer.precision``; of a name that is not known, float32's."""
        text = str(name)
        if text in ("16-true", "bf16-true"):
            return cls(2, 2)
        if text.startswith("64"):
            return cls(8, 8)
        if text.startswith(("16", "bf16")):
            return cls(SINGLE, 2)
        return cls()


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes that one device holds at its fullest, in training.

    Attributes:
        parameters: with the copies in which a mixed precision computes, or, sharded, the block
            that is gathered.
        gradients: with the buckets in which DDP exchanges them.
        moments: Adam's.
        activations: what the forward keeps for the backward, and the gradient of the logits.
        signals: reference model and domains' gradients, for the mixer.
    """

    parameters: int
    gradients: int
    moments: int
    activations: int
    signals: int = 0

    @property
    def total(self) -> int:
        """Their sum; the libraries' own memory and fragmentation come on top."""
        return sum(asdict(self).values())


def device_memory(
    network: Any,
    sequences: int,
    context: int,
    precision: Precision,
    devices: int = 1,
    sharded: bool = False,
    signals: int = 0,
) -> DeviceMemory:
    """Estimate what training with AdamW holds on one device.

    Args:
        network: a model of transformers, e.g. on the meta device.
        sequences: of a micro-batch on one device.
        context: T tokens of each.
        precision: bytes of its numbers.
        devices: number of devices.
        sharded: whether parameters, gradients and moments are shared out over the devices (FSDP);
            else each has all of them (DDP).
        signals: bytes that the mixer's signals hold.
    """
    size, compute = precision.parameter, precision.activation
    count = parameter_count(network)
    activations = sequences * context * activation_bytes(network, compute)
    if sharded and devices > 1:
        own, gathered = -(-count // devices), _largest_block(network)
        return DeviceMemory(
            parameters=size * own + compute * gathered,
            gradients=size * own + compute * gathered,
            moments=MOMENTS * size * own,
            activations=activations,
            signals=signals,
        )
    copies = 0 if compute == size else compute * _matrix_entries(network)
    buckets = 2 if devices > 1 else 1
    return DeviceMemory(
        parameters=size * count + copies,
        gradients=buckets * size * count,
        moments=MOMENTS * size * count,
        activations=activations,
        signals=signals,
    )


def activation_bytes(network: Any, size: int) -> int:
    """Bytes a token that a forward keeps, estimated from the matrices' widths.

    Each matrix of a block keeps its input, and what comes after it keeps its output; two norms a
    block keep theirs. That is ``18 d`` numbers for a block of GPT-2 of width d, where Korthikanti
    et al. (arXiv 2205.05198, section 4.1, without dropout and attention's matrix) count some 17.
    Of the output layer the logits are kept, and the backward makes their gradient. Attention is
    taken to be fused, experts to be like a dense layer.
    """
    config, widths = network.config, 0
    output = network.get_output_embeddings()
    for module in matrices(network).values():
        if module is not output:
            widths += sum(weight_of(module).shape)
    widths += 2 * int(config.num_hidden_layers) * int(config.hidden_size)
    return size * (widths + 2 * int(config.vocab_size))


def signal_bytes(network: Any, reference: Any | None, domains: int) -> int:
    """Bytes of a reference model, and of exact gradients of so many domains, 0 for none."""
    kept = parameter_count(reference) if reference is not None else 0
    return SINGLE * (kept + domains * parameter_count(network))


def checkpoint_bytes(network: Any, precision: Precision) -> int:
    """Bytes of a checkpoint: parameters and Adam's moments. The mixer's state is small."""
    return (1 + MOMENTS) * precision.parameter * parameter_count(network)


def parameter_count(network: Any) -> int:
    """Parameters; a tied one counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _matrix_entries(network: Any) -> int:
    return sum(weight_of(module).numel() for module in matrices(network).values())


def _largest_block(network: Any) -> int:
    """Parameters of the largest Transformer block, or of all that lies outside of the blocks."""
    blocks = list(network.get_submodule(transformer_blocks(network)).children())
    counts = [parameter_count(block) for block in blocks]
    return max(*counts, parameter_count(network) - sum(counts))
