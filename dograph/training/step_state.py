"""What is known of the optimiser step under way."""

from __future__ import annotations

from dataclasses import dataclass, field

from dograph.signals.batch_signals import BatchSignals


@dataclass
class StepState:
    """The optimiser step under way; a new one begins with its first micro-batch.

    Attributes:
        index: optimiser steps done before it.
        micro_batches: signals of its micro-batches so far, of all ranks.
        usable: whether everything measured of it so far is finite. The optimiser skips a step that
            is not usable.
    """

    index: int = 0
    micro_batches: list[BatchSignals] = field(default_factory=list)
    usable: bool = True
