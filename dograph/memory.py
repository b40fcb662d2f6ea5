"""What it means that memory does not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dograph.errors import UserError

_OF_TORCH = "can't allocate memory"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns an allocation that failed, on the CPU or a GPU, into an error that says what to do.

    Raises:
        UserError: with how much was asked for, and the keys that decide it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        allocation = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not allocation and _OF_TORCH not in str(error):
            raise
        how = f" ({str(error).strip().splitlines()[0]})" if str(error).strip() else ""
        raise UserError(
            f"memory does not suffice{how}: lower "
            "data.batch_size (trainer.accumulate_grad_batches keeps the global batch), "
            "data.context or model.config, then give the same command again"
        ) from error
