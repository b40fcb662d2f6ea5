"""Training steps by recipe and in hand-written loops, and what DoGraph adds to them.

Each trains in a process of its own; their steps are interleaved.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.baselines import SIZES
from benchmarks.interleaved import interleave_steps
from benchmarks.measuring import Row, median_ratio

ROUNDS = {"nano": 30, "micro": 15, "small": 5}
WARM_UP = {"nano": 5, "micro": 5, "small": 2}
MOST = {"nano": 1.06, "micro": 1.03, "small": 1.03}
THREADS = len(os.sched_getaffinity(0))
NANO_GPT = "NANOGPT"
"""Environment variable with the folder of a copy of nanoGPT's repository."""
MISSING = f"not measured: set {NANO_GPT} to a folder with a copy of nanoGPT"


def rows() -> list[Row]:
    """Compare every size with hand-written loops, and the mixers with Stratified."""
    return [row for size in SIZES for row in rows_of_size(size)]


def rows_of_size(size: str) -> list[Row]:
    """Measure one size."""
    folder = os.environ.get(NANO_GPT)
    names = ["stratified", "plain", "dograph"]
    if size != "small":  # its activation function only takes notable time in nano and micro
        names.append("stock")
    commands = {name: ["-m", "benchmarks.baselines", name, size] for name in names}
    if folder is not None:
        more = ["--nanogpt", str(Path(folder).resolve())]
        commands["nanogpt"] = ["-m", "benchmarks.baselines", "nanogpt", size, *more]
    times = interleave_steps(commands, ROUNDS[size], WARM_UP[size], THREADS)
    what = SIZES[size]
    stratified = times["stratified"]
    batch = f"{what.batch} × {what.context} tokens, {THREADS} threads"
    second = f"{what.batch * what.context / statistics.median(stratified):,.0f} tokens/s"
    speed = median_ratio(times["plain"], stratified)
    table = [
        Row(
            f"{size}: tokens/s of `lightning run` (Stratified) over a hand-written loop",
            f"{speed:.2f}",
            "≥ 1.00",
            round(speed, 2) >= 1,
            f"same network; {batch}; {second}",
        ),
    ]
    if "stock" in times:
        table.append(_over(size, "unmodified transformers GPT-2 in that loop", times, "stock"))
    if folder is not None:
        table.append(_over(size, "nanoGPT's model in that loop", times, "nanogpt"))
    else:
        table.append(Row(f"{size}: … over nanoGPT's model in that loop", "", "", None, MISSING))
    overhead = median_ratio(times["dograph"], stratified)
    most = MOST[size]
    spread = quartiles(times["dograph"], stratified)
    table.append(
        Row(
            f"{size}: step of DoGraph as published over Stratified",
            f"{overhead:.3f}",
            f"≤ {most}",
            overhead <= most,
            f"every step; quartiles of {ROUNDS[size]} rounds {spread}"
            + ("" if overhead <= most else "; its parts: `--only overhead`, and noise"),
        )
    )
    return table


def _over(size: str, what: str, times: dict[str, list[float]], name: str) -> Row:
    ratio = median_ratio(times[name], times["stratified"])
    return Row(f"{size}: … over {what}", f"{ratio:.2f}", "", None, "")


def quartiles(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Format the quartiles of the rounds' ratios."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{low:.3f} … {high:.3f}"
