"""The time that training took, without validation and drawing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """A stopwatch that is stopped during validation and drawing.

    Args:
        seconds: initial reading, e.g. of a resumed run.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._elapsed = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Its reading in seconds."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._elapsed + running

    def start(self) -> None:
        """Starts it; no effect on a running clock."""
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        """Stops it."""
        self._elapsed, self._since = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops it inside the block, if it was running."""
        running = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if running:
                self.start()
