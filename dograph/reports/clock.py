"""How long training took, without what is done beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """A stopwatch that stands still during validation and drawing.

    Args:
        seconds: what it shows at first, e.g. of the run that is resumed.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._elapsed = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds it has run."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._elapsed + running

    def start(self) -> None:
        """Runs from now on; no effect on a running clock."""
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        """Stands still from now on."""
        self._elapsed, self._since = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stands still inside the block, if it was running."""
        running = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if running:
                self.start()
