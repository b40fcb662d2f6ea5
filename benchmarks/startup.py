"""Time from command to first optimiser step, by the command's own records.

The first step ends when the run writes its first training point for TensorBoard
(``report.every=1``), by the same clock that is read when the command starts. Only what follows
that step is cut from the recipe: ``trainer.max_steps=1``, no validation.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.import_profile import draw_profile, read_profile
from benchmarks.measuring import Row, interleaved

ROOT = Path(__file__).parent.parent
FIGURE = ROOT / "docs" / "figures" / "import_profile.png"
COMMAND = str(Path(sys.executable).with_name("lightning"))
RECIPES = {"uniform": "recipes/uniform_gpt2.yaml", "DoGraph": "recipes/dograph_gpt2.yaml"}
ONE_STEP = ("trainer.max_steps=1", "trainer.limit_val_batches=0", "report.every=1")
FLOOR = "import torch, lightning.pytorch; from transformers import AutoModelForCausalLM"
LIBRARIES = "importing torch, Lightning and transformers alone"
LIBRARIES_NOTE = "with Python's garbage collector on, which the command disables during imports"
THREADS = 2
HELPS, ROUNDS = 9, 3
SHOWN = 10
HELP_TARGET, STEP_TARGET = 1.5, 12.0


def execute(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, on two threads, in the project's folder."""
    threads = {"OMP_NUM_THREADS": str(THREADS)}
    return subprocess.run(
        words,
        check=True,
        cwd=ROOT,
        env={**os.environ, **threads},
        capture_output=True,
        encoding="utf-8",
    )


def first_step(recipe: str) -> tuple[float, float]:
    """Return (wall seconds to the end of the first step, processor seconds of the command)."""
    with tempfile.TemporaryDirectory() as runs:
        spent, start = processor_seconds(), time.time()
        execute(COMMAND, "run", recipe, f"runs={runs}", *ONE_STEP)
        spent = processor_seconds() - spent
        (events,) = Path(runs).rglob("events.out.tfevents.*")
        record = EventAccumulator(str(events))
        record.Reload()
        point = record.Scalars("train/loss")[0]
    assert point.step == 1, point
    return point.wall_time - start, spent


def processor_seconds() -> float:
    """Return the processor seconds of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows() -> list[Row]:
    """Measure help, first steps and imports."""
    helps = interleaved({"help": lambda: execute(COMMAND, "run", "--help")}, HELPS)["help"]
    # Prepares the corpus if needed, and reads all files into memory.
    execute(sys.executable, "-m", "dograph", "prepare", RECIPES["DoGraph"])
    floors: list[float] = []
    steps: dict[str, list[tuple[float, float]]] = {name: [] for name in RECIPES}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        execute(sys.executable, "-c", FLOOR)
        floors.append(time.perf_counter() - start)
        for name, recipe in RECIPES.items():
            steps[name].append(first_step(recipe))
    note = f"median of {HELPS}, {min(helps):.2f} … {max(helps):.2f} s"
    return [
        _row("`lightning run --help`", statistics.median(helps), HELP_TARGET, note),
        *(_step_row(name, measured) for name, measured in steps.items()),
        Row(LIBRARIES, f"{statistics.median(floors):.1f} s", note=LIBRARIES_NOTE),
        *profile_rows(),
    ]


def _row(quantity: str, value: float, target: float, note: str) -> Row:
    figure = f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    return Row(quantity, figure, f"≤ {target:g} s", value <= target, note)


def _step_row(name: str, measured: list[tuple[float, float]]) -> Row:
    walls, processor = zip(*measured, strict=True)
    note = (
        f"prepared store, {THREADS} threads, median of {len(walls)}, {min(walls):.1f} … "
        f"{max(walls):.1f} s; the whole one-step command takes "
        f"{statistics.median(processor):.1f} s of processor time"
    )
    quantity = f"command to first optimiser step, {name}, GPT-2 nano"
    return _row(quantity, statistics.median(walls), STEP_TARGET, note)


def profile_rows() -> list[Row]:
    """Measure and draw the slowest imports of DoGraph's command."""
    with tempfile.TemporaryDirectory() as runs:
        recipe = RECIPES["DoGraph"]
        words = (COMMAND, "run", recipe, f"runs={runs}", *ONE_STEP)
        done = execute(sys.executable, "-X", "importtime", *words)
    packages = read_profile(done.stderr)
    total = sum(package.seconds for package in packages)
    draw_profile(packages[:SHOWN], total, FIGURE)
    slowest = ", ".join(f"{each.name} {each.seconds:.2f}" for each in packages[:SHOWN])
    return [
        Row(
            "imports of DoGraph's command, all packages",
            f"{total:.1f} s",
            note=f"`-X importtime`, own seconds of the {SHOWN} slowest: {slowest} "
            f"(docs/figures/{FIGURE.name})",
        )
    ]
