"""The global random states of torch, numpy and Python, as checkpoints hold them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from dograph.mixers.plain import random_state_of, set_random_state_of


def global_random_state(device: torch.device | None = None) -> dict[str, Any]:
    """The states in plain form: torch's on the CPU and on ``device``, numpy's and Python's."""
    state = {
        "torch": torch.get_rng_state(),
        "numpy": random_state_of(np.random),
        "python": random_state_of(random),
    }
    module = _module_of(device)
    if module is not None:
        state["device"] = module.get_rng_state(device)
    return state


def set_global_random_state(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Restore what ``global_random_state`` gave; a device's only where there is one.

    Raises:
        ValueError, TypeError, RuntimeError, LookupError: if it is no such state.
    """
    torch.set_rng_state(state["torch"])
    set_random_state_of(np.random, state["numpy"])
    set_random_state_of(random, state["python"])
    module = _module_of(device)
    if module is not None and "device" in state:
        module.set_rng_state(state["device"], device)


@contextmanager
def random_state_kept(seed: int | None = None) -> Iterator[None]:
    """Leave the global random states as they were; in the block they start from ``seed``."""
    uses_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    device = torch.device("cuda", torch.cuda.current_device()) if uses_cuda else None
    before = global_random_state(device)
    try:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002  (user code may draw from it)
            random.seed(seed)
        yield
    finally:
        set_global_random_state(before, device)


def _module_of(device: torch.device | None) -> Any:
    """The module of torch for a device that has random numbers of its own; None for the CPU."""
    if device is None or device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    return module if hasattr(module, "get_rng_state") else None
