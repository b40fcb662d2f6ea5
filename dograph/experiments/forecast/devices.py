"""The devices that a recipe asks for, whether or not this machine has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dograph.errors import UserError, check_range

SHARDED = ("fsdp", "model_parallel", "modelparallel")
"""Strategies that share parameters, gradients and moments out over the devices."""
ON_CPU = ("cpu", "mps")
"""Accelerators of which a machine has one."""


@dataclass(frozen=True)
class Devices:
    """How many processes a run would have, one a device.

    Attributes:
        a_node: devices of each node.
        nodes: number of nodes.
        accelerator: as in the recipe.
        strategy: its name, as in the recipe.
        assumed: whether the number is this machine's, since the recipe leaves it to Lightning.
    """

    a_node: int
    nodes: int = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    assumed: bool = False

    @classmethod
    def of(cls, trainer: Mapping[str, Any]) -> Devices:
        """Those of a recipe's arguments for the trainer; starts nothing.

        Raises:
            UserError: for a number of devices or nodes that no machine has.
        """
        accelerator, strategy = str(trainer["accelerator"]), trainer["strategy"]
        if isinstance(strategy, Mapping):
            strategy = str(strategy["class_path"]).rpartition(".")[2]
        given = _number(trainer["devices"])
        here = 1 if accelerator in ON_CPU else max(torch.cuda.device_count(), 1)
        a_node = here if given is None else given
        assumed = given is None and accelerator not in ON_CPU
        nodes = int(trainer["num_nodes"])
        check_range("trainer.devices", a_node, at_least=1)
        check_range("trainer.num_nodes", nodes, at_least=1)
        return cls(a_node, nodes, accelerator, str(strategy), assumed)

    @property
    def count(self) -> int:
        """Devices in all."""
        return self.a_node * self.nodes

    @property
    def sharded(self) -> bool:
        """Whether the strategy shares the model out over the devices."""
        return self.strategy.lower().startswith(SHARDED)


def _number(devices: Any) -> int | None:
    """Number of devices by Lightning's rules; None where it takes as many as there are."""
    if isinstance(devices, list | tuple):
        return len(devices)
    text = str(devices).strip()
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    if text in ("auto", "-1"):
        return None
    if not text.removeprefix("-").isdecimal():
        remedy = "give a number, a list of devices, or auto"
        raise UserError(f"trainer.devices is {devices!r}: {remedy}")
    return int(text)
