"""The benchmark's parts, in the order of their importance; each has a deadline."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.card import SOURCE, utilisation
from benchmarks.gpu.processes import MARKED, PROFILED, ROOT, SHOWN, Processes
from benchmarks.gpu.size import LOOP, Size
from benchmarks.measuring import Row, median_ratio
from benchmarks.scale.counts import gpt2, training_flops
from dograph.mixers import DoGraphSchedule
from dograph.signals.batch_signals import EmbeddingGradients

START_UP = 0.75
"""Share of a part's time in which its processes must have started and compiled."""
MEASURED = 0.65
"""Share of what is left then that its interleaved segments take; marks and profiles follow."""
RUN = 20_000
"""Steps of a run, as configs/trainer/gpu.yaml has them."""
MEASURE = 120
"""Steps of such a run that are drawn by the prior while the schedule reads gradients."""
LARGEST_DIFFERENCE = 1e-3
"""Nats between losses of CPU and GPU that rounding explains."""


@dataclass
class Bench:
    """What the parts share.

    Attributes:
        size: what is trained.
        device: "cpu" or "cuda".
        peak: of the card, TFLOP/s; None if not known.
        folder: for temporary files.
        options: of all processes: size, device, corpus.
        processes: the measured ones.
    """

    size: Size
    device: str
    peak: float | None
    folder: Path
    options: list[str]
    processes: Processes

    def measure(self, names: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """Start what does not run yet, interleave all segments, then mark and profile them."""
        began = time.monotonic()
        missing = [name for name in names if name not in self.processes.names]
        ready = self.processes.start(missing, START_UP * seconds)
        left = seconds - (time.monotonic() - began)
        times = self.processes.interleave(self.size.rounds, MEASURED * left)
        measured: dict[str, Any] = {"ready": ready, "seconds": times}
        for key, command in (("parts", MARKED), ("profile", PROFILED)):
            if time.monotonic() - began > seconds:
                break
            answers = self.processes.segments(command)
            measured[key] = {name: answer[key] for name, answer in answers.items()}
            measured["memory"] = {name: answer["memory"] for name, answer in answers.items()}
        return measured

    @property
    def flops_per_token(self) -> int:
        """Of the model's forward and backward, ``6 N + 12 L T d``."""
        size = self.size
        sizes = (size.layers, size.width, size.batch, size.vocabulary, size.context)
        return training_flops(gpt2(size.name, *sizes))

    def tokens_per_second(self, seconds: list[float]) -> float:
        """Median over segments."""
        return self.size.steps * self.size.tokens / statistics.median(seconds)


def speed(bench: Bench, seconds: float) -> dict[str, Any]:
    """`lightning run` against a hand-written loop: tokens/s, MFU, where the time goes, memory."""
    measured = bench.measure(("run", LOOP, "run without figures"), seconds)
    bench.processes.stop([LOOP, "run without figures"])
    times, label = measured["seconds"], bench.size.name
    quantity = f"{label}: tokens/s of `lightning run` (Stratified) over a hand-written loop"
    bare = f"{label}: … with report.figures_every=0, which leaves no block uncompiled"
    rows = [
        _over_loop(quantity, bench, times, "run", "≥ 1.00"),
        _over_loop(bare, bench, times, "run without figures", ""),
        *(_mfu(bench, times, name, target) for name, target in (("run", "≥ 0.40"), (LOOP, ""))),
        *_memory(bench, measured),
    ]
    return {"rows": rows, "measured": measured}


def mixers(bench: Bench, seconds: float) -> dict[str, Any]:
    """DoGraph and its schedule over Stratified: time of the same steps."""
    measured = bench.measure(("run", "dograph", "schedule"), seconds)
    bench.processes.stop()
    times, label = measured["seconds"], bench.size.name
    published = f"{label}: step of DoGraph as published over Stratified"
    reading = f"{label}: training over Stratified while the schedule reads gradients"
    every = f"whole intervals in segments of {bench.size.steps} steps"
    rows = [
        _over_run(published, bench, times, "dograph", 1.05, "every step"),
        _over_run(reading, bench, times, "schedule", math.inf, every),
        _schedules_run(bench, times),
        *_memory(bench, measured),
    ]
    return {"rows": rows, "measured": measured}


def agreement(bench: Bench, seconds: float) -> dict[str, Any]:
    """Losses of CPU and GPU: a small model, float32, the same steps."""
    path = bench.folder / "losses.json"
    command = [sys.executable, "-m", "benchmarks.gpu.agreement", *bench.options]
    done = subprocess.run(
        [*command, "--write", str(path)],
        cwd=ROOT,
        timeout=seconds,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-SHOWN:])
    losses = json.loads(path.read_text(encoding="utf-8"))
    return {"rows": [_difference(bench, *each) for each in losses.items()], "measured": losses}


Part = Callable[[Bench, float], dict[str, Any]]
"""Measures within the given seconds; returns rows, and what they were made from."""
PARTS: dict[str, tuple[Part, float]] = {
    "speed": (speed, 0.5),
    "mixers": (mixers, 0.85),
    "agreement": (agreement, 0.97),
}
"""Each part's function and the share of the budget by which it must have ended. A study that uses
what is left is one more entry."""


def _over_loop(
    quantity: str, bench: Bench, times: dict[str, list[float]], name: str, target: str
) -> Row:
    if not times.get(name) or not times.get(LOOP):
        return _not_measured(quantity, target)
    ratio = median_ratio(times[LOOP], times[name])
    ours, theirs = (bench.tokens_per_second(times[each]) for each in (name, LOOP))
    note = f"{ours:,.0f} and {theirs:,.0f} tokens/s; {_spread(times[LOOP], times[name])}"
    return Row(quantity, f"{ratio:.3f}", target, round(ratio, 2) >= 1 if target else None, note)


def _over_run(
    quantity: str, bench: Bench, times: dict[str, list[float]], name: str, most: float, note: str
) -> Row:
    target = f"≤ {most}" if most < math.inf else ""
    if not times.get(name) or not times.get("run"):
        return _not_measured(quantity, target)
    ratio = median_ratio(times[name], times["run"])
    speed = f"{bench.tokens_per_second(times[name]):,.0f} tokens/s"
    note = f"{note}; {speed}; {_spread(times[name], times['run'])}"
    return Row(quantity, f"{ratio:.3f}", target, ratio <= most if target else None, note)


def _schedules_run(bench: Bench, times: dict[str, list[float]]) -> Row:
    """The schedule's share of a run as the GPU's configuration has it: later steps count 1."""
    quantity, most = f"{bench.size.name}: … over a run", 1.02
    if not times.get("schedule") or not times.get("run"):
        return _not_measured(quantity, f"≤ {most}")
    mixer = DoGraphSchedule(measure=MEASURE)
    read = sum(mixer.needs_at(step, EmbeddingGradients) for step in range(RUN))
    ratio = 1 + (median_ratio(times["schedule"], times["run"]) - 1) * read / RUN
    note = f"{read} of {RUN:,} steps read gradients; the kernel, once a run, is left out"
    return Row(quantity, f"{ratio:.4f}", f"≤ {most}", ratio <= most, note)


def _mfu(bench: Bench, times: dict[str, list[float]], name: str, target: str) -> Row:
    what = "`lightning run`" if name == "run" else f"the {name}"
    quantity = f"{bench.size.name}: model FLOPs utilisation of {what}"
    if bench.peak is None or not times.get(name):
        return _not_measured(quantity, target)
    value = utilisation(bench.flops_per_token, bench.tokens_per_second(times[name]), bench.peak)
    note = f"(6 N + 12 L T d) · tokens/s over {bench.peak:,.0f} TFLOP/s ({SOURCE})"
    return Row(quantity, f"{value:.3f}", target, value >= 0.4 if target else None, note)


def _memory(bench: Bench, measured: dict[str, Any]) -> list[Row]:
    return [
        Row(
            f"{bench.size.name}: peak GPU memory, {name}",
            f"{memory['allocated'] / 1000:.1f} GB",
            note=f"{memory['reserved'] / 1000:.1f} GB reserved",
        )
        for name, memory in measured.get("memory", {}).items()
        if memory
    ]


def _difference(bench: Bench, name: str, by_device: dict[str, list[float]]) -> Row:
    ours, cpu = by_device[bench.device], by_device["cpu"]
    largest = max(abs(a - b) for a, b in zip(ours, cpu, strict=True))
    return Row(
        f"a small model, float32, {name}: largest difference of a loss, {bench.device} and CPU",
        f"{largest:.1e} nats",
        f"≤ {LARGEST_DIFFERENCE:g}",
        largest <= LARGEST_DIFFERENCE,
        f"{len(cpu)} steps; last losses {ours[-1]:.4f} and {cpu[-1]:.4f}",
    )


def _spread(numerators: list[float], denominators: list[float]) -> str:
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return f"{len(ratios)} interleaved rounds, {min(ratios):.3f} … {max(ratios):.3f}"


def _not_measured(quantity: str, target: str) -> Row:
    return Row(quantity, "not measured", target)
