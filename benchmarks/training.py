"""Training steps: by recipe and by hand, and what DoGraph adds to them.

All contestants train in processes of their own and take turns, one step each.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contestants import SCHEDULE_INTERVAL, SIZES
from benchmarks.measuring import Row, median_ratio
from benchmarks.turns import take_turns
from dograph.mixers import DoGraphSchedule

ROUNDS = {"nano": 30, "micro": 15, "small": 5}
WARM_UP = {"nano": 5, "micro": 5, "small": 2}
MOST = {"dograph": {"nano": 1.06, "micro": 1.03, "small": 1.03}, "schedule": 1.02}
THREADS = len(os.sched_getaffinity(0))
NANO_GPT = "NANOGPT"
"""Environment variable: folder of a copy of nanoGPT's repository, which is none of this one."""
MISSING = f"not measured: set {NANO_GPT} to a folder with a copy of nanoGPT"


def rows() -> list[Row]:
    """Of every size: speed over loops written by hand, and the mixers' overheads."""
    return [row for size in SIZES for row in of_size(size)]


def of_size(size: str) -> list[Row]:
    """One size's rows."""
    folder = os.environ.get(NANO_GPT)
    names = ["stratified", "plain", "dograph", "schedule"]
    if size != "small":  # a matter of nano and micro, where the activation function counts
        names.append("stock")
    commands = {name: ["-m", "benchmarks.contestants", name, size] for name in names}
    if folder is not None:
        more = ["--nanogpt", str(Path(folder).resolve())]
        commands["nanogpt"] = ["-m", "benchmarks.contestants", "nanogpt", size, *more]
    times = take_turns(commands, ROUNDS[size], WARM_UP[size], THREADS)
    what = SIZES[size]
    stratified = times["stratified"]
    batch = f"{what.batch} × {what.context} tokens, {THREADS} threads"
    second = f"{what.batch * what.context / statistics.median(stratified):,.0f} tokens/s"
    speed = median_ratio(times["plain"], stratified)
    found = [
        Row(
            f"{size}: tokens/s of `lightning run` (Stratified) over a loop by hand",
            f"{speed:.2f}",
            "≥ 1.00",
            round(speed, 2) >= 1,
            f"same network; {batch}; {second}",
        ),
    ]
    if "stock" in times:
        found.append(_over(size, "transformers' GPT-2 as it comes, in that loop", times, "stock"))
    if folder is not None:
        found.append(_over(size, "nanoGPT's model in that loop", times, "nanogpt"))
    else:
        found.append(Row(f"{size}: … over nanoGPT's model in that loop", "", "", None, MISSING))
    overhead = median_ratio(times["dograph"], stratified)
    most = MOST["dograph"][size]  # type: ignore[index]
    spread = quartiles(times["dograph"], stratified)
    found.append(
        Row(
            f"{size}: step of DoGraph as published over Stratified",
            f"{overhead:.3f}",
            f"≤ {most}",
            overhead <= most,
            f"every step; quartiles of {ROUNDS[size]} rounds {spread}"
            + ("" if overhead <= most else "; what it is made of: `--only overhead`, and noise"),
        )
    )
    found.append(schedule_row(size, times["schedule"], stratified))
    return found


def _over(size: str, what: str, times: dict[str, list[float]], name: str) -> Row:
    ratio = median_ratio(times[name], times["stratified"])
    return Row(f"{size}: … over {what}", f"{ratio:.2f}", "", None, "")


def schedule_row(size: str, times: Sequence[float], stratified: Sequence[float]) -> Row:
    """What the schedule's sketched and probed steps take more, over an interval of its default."""
    default = DoGraphSchedule().update_every
    more: list[list[float]] = [[] for _ in range(SCHEDULE_INTERVAL)]
    for turn, (own, plain) in enumerate(zip(times, stratified, strict=True)):
        more[(turn + WARM_UP[size]) % SCHEDULE_INTERVAL].append(own / plain - 1)
    extra = sum(statistics.median(place) for place in more[1:])
    ratio = 1 + extra / default
    probed = 1 + statistics.median(more[-1])
    return Row(
        f"{size}: training under the schedule over Stratified",
        f"{ratio:.3f}",
        f"≤ {MOST['schedule']}",
        ratio <= float(MOST["schedule"]),  # type: ignore[arg-type]
        f"4 sketched steps of {default}; the last, with probe and update, takes {probed:.2f} steps",
    )


def quartiles(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """The middle half of the rounds' ratios."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{low:.3f} … {high:.3f}"
