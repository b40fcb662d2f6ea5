"""How often a run is reported."""

from __future__ import annotations

from dataclasses import dataclass

from dograph.errors import UserError, check_range


@dataclass(frozen=True)
class ReportSettings:
    """What TensorBoard gets and how often; counts without a unit are optimiser steps."""

    every: int = 10
    """between two points of the training curves."""
    figures_every: int = 100
    """between two sets of figures; gradients are observed just before. 0: only at the end."""
    window: int = 8
    """steps of sketches that one picture of gradient directions shows."""
    checkpoint_every: int = 100
    """between two checkpoints."""
    checkpoint_minutes: float = 30.0
    """minutes between two checkpoints, at most."""
    checkpoints_kept: int = 2
    """newest checkpoints that stay on disk."""
    line_seconds: float = 30.0
    """seconds between two lines of progress, where the output is no terminal."""
    non_finite_limit: int = 5
    """optimiser steps in a row that may be skipped for numbers that are not finite."""

    def __post_init__(self) -> None:
        for key in ("every", "window", "checkpoint_every", "checkpoints_kept", "non_finite_limit"):
            check_range(f"report.{key}", getattr(self, key), at_least=1)
        check_range("report.checkpoint_minutes", self.checkpoint_minutes, above=0)
        check_range("report.line_seconds", self.line_seconds, at_least=0)
        if self.figures_every and self.figures_every < self.window:
            raise UserError(
                f"report.figures_every is {self.figures_every}: it must be 0 or at least "
                f"report.window ({self.window})"
            )
