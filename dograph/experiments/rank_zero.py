"""What one process does for all ranks of a run."""

from __future__ import annotations

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dograph.terminal.progress import print_line
from dograph.terminal.screen import Screen


def is_rank_zero() -> bool:
    """Whether this process writes for all ranks; it starts the others later."""
    return getattr(rank_zero_only, "rank", 0) == 0


@rank_zero_only
def rank_zero_print(text: str) -> None:
    """Print a line on rank zero."""
    print_line(Screen(), text)
