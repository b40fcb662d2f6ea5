"""What mixing costs from GPT-2 small to 7 B on 1 to 1,024 GPUs: a model and its checks."""

from __future__ import annotations

from benchmarks.measuring import Row


def rows() -> list[Row]:
    """Compare the model's predictions for this machine with what is counted and timed on it."""
    from benchmarks.scale import counted, timed

    return [*counted.rows(), *timed.rows()]
