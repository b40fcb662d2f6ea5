"""Steps and peak memory of training that keeps freed memory, over the allocator's defaults."""

from __future__ import annotations

from benchmarks.interleaved import SteppedProcess, interleave_steps
from benchmarks.measuring import Row, median_ratio
from benchmarks.training import THREADS, quartiles

ROUNDS = {"nano": 30, "micro": 10}
WARM_UP = 5
DEFAULT, KEPT = "default", "kept"


def rows() -> list[Row]:
    """Compare Stratified with and without what the commands set at their start."""
    return [row for size in ROUNDS for row in rows_of_size(size)]


def rows_of_size(size: str) -> list[Row]:
    """Measure one size: step by step in turn, then the largest resident sizes."""
    peaks: dict[str, float] = {}

    def read(children: dict[str, SteppedProcess]) -> None:
        peaks.update({name: child.peak_memory() for name, child in children.items()})

    command = ["-m", "benchmarks.baselines", "stratified", size]
    commands = {DEFAULT: command, KEPT: [*command, "--keep-memory"]}
    times = interleave_steps(commands, ROUNDS[size], WARM_UP, THREADS, at_end=read)
    ratio = median_ratio(times[KEPT], times[DEFAULT])
    spread = quartiles(times[KEPT], times[DEFAULT])
    return [
        Row(
            f"{size}: step with freed memory kept over glibc's defaults",
            f"{ratio:.3f}",
            "≤ 1",
            ratio <= 1,
            f"{THREADS} threads; quartiles of {ROUNDS[size]} rounds {spread}",
        ),
        Row(
            f"{size}: peak memory with freed memory kept over glibc's defaults",
            f"{peaks[KEPT] / peaks[DEFAULT]:.3f}",
            note=f"{peaks[KEPT]:,.0f} and {peaks[DEFAULT]:,.0f} MB",
        ),
    ]
