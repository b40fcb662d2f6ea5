"""How a built network runs: compiled, with checkpointed blocks, with its experts balanced."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from dograph.errors import UserError
from dograph.signals.layers import transformer_blocks


def compile_blocks(network: Any, observed: Sequence[str]) -> None:
    """Compiles each Transformer block that has none of the observed layers."""
    name = transformer_blocks(network)
    for index, block in network.get_submodule(name).named_children():
        prefix = f"{name}.{index}."
        if not any(module.startswith(prefix) for module in observed):
            block.compile()


def checkpoint_blocks(network: Any) -> None:
    """Has each block computed again in the backward, instead of keeping its activations."""
    newer = getattr(network, "activation_checkpointing_enable", None)  # since transformers 5
    enable = newer or network.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise UserError(f"model.gradient_checkpointing is true: {error}: leave it out") from error


def balance_coefficient(network: Any) -> float:
    """How much the load-balancing loss of a network's experts counts; 0 for one without."""
    asked = "output_router_logits" in inspect.signature(network.forward).parameters
    return float(getattr(network.config, "router_aux_loss_coef", 0) or 0) if asked else 0.0
