"""What one process does for all ranks of a run."""

from __future__ import annotations

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console


def is_rank_zero() -> bool:
    """Whether this process writes for all ranks; it starts the others later."""
    return getattr(rank_zero_only, "rank", 0) == 0


@rank_zero_only
def rank_zero_print(text: str) -> None:
    """Print a line on rank zero."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
