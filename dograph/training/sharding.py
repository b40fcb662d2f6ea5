"""Sharding a network's parameters over the ranks, by PyTorch's fully_shard (FSDP2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from dograph.signals.layers import transformer_blocks


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shares out every Transformer block's parameters, and the others', over a mesh's ranks, once.

    Args:
        network: with the same parameters on every rank.
        mesh: of the ranks that share the batch.
    """
    if isinstance(network, FSDPModule):
        return
    blocks: Any = network.get_submodule(transformer_blocks(network))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """A tensor that may be in parts on the ranks, put together on each."""
    return value.full_tensor() if isinstance(value, DTensor) else value
