"""Run the benchmarks, each in its own process, and write their tables.

python -m benchmarks                # all of them, about 40 minutes on two cores
python -m benchmarks --only solver  # one of them; the rows of the others stay
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.gpu import report as gpu
from benchmarks.measuring import Row
from dograph.terminal.screen import Screen

BENCHMARKS = {
    "training": "Training step, and DoGraph's overhead",
    "schedule": "DoGraph's schedule",
    "solver": "The graph problem",
    "limits": "Limits",
    "clusters": "K-means",
    "loader": "Loader",
    "prepare": "Text to tokens",
    "startup": "Start-up",
    "doge": "DoGE's gradients",
    "overhead": "DoGraph's overhead by part",
    "allocator": "Freed memory, kept or returned",
    "memory": "Peak memory",
    "scale": "Cost model against measurements",
    "sketches": "Sketches against per-sequence loops",
}
"""Modules of this package with ``rows() -> list[Row]``, and their headings."""
FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
TABLE = FOLDER / "README.md"
INTRODUCTION = """\
# Benchmarks

`python -m benchmarks` measures everything but GPUs and writes this page; `--only NAME` measures one
part.
Ratios compare interleaved runs, so that a busy machine slows all alike; figures are medians.
"""


def measure(name: str) -> dict[str, Any]:
    """Run one benchmark in its own process; return its rows with date, machine and seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", "--only", name, "--write-rows", str(rows)]
        subprocess.run(command, check=True, cwd=FOLDER.parent)
        table = json.loads(rows.read_text(encoding="utf-8"))
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "seconds": round(time.perf_counter() - start),
        "rows": table,
    }


def machine() -> str:
    """Describe cores, processor, system and versions."""
    name = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return (
        f"{os.cpu_count()} cores of {name}, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def page(results: dict[str, Any]) -> str:
    """README.md of all results, and of those that ``benchmarks.gpu`` keeps."""
    lines = [INTRODUCTION]
    for name, title in BENCHMARKS.items():
        if name not in results:
            continue
        part = results[name]
        lines += [
            f"## {title}",
            "",
            f"`--only {name}`: {part['seconds']} s, {part['date']}, {part['machine']}",
            "",
            "| quantity | figure | target | holds | |",
            "|---|---|---|---|---|",
        ]
        lines += [_line(Row(**row)) for row in part["rows"]] + [""]
    return "\n".join([*lines, *gpu.section()])


def _line(row: Row) -> str:
    holds = {True: "yes", False: "**no**", None: ""}[row.holds]
    cells = (row.quantity, row.figure, row.target, holds, row.note)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def show(name: str, part: dict[str, Any]) -> None:
    """Print one benchmark's rows."""
    table = Table("quantity", "figure", "target", "holds", "", title=BENCHMARKS[name])
    for row in part["rows"]:
        holds = {True: "yes", False: "NO", None: ""}[row["holds"]]
        table.add_row(row["quantity"], row["figure"], row["target"], holds, row["note"])
    Screen().print(table)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=list(BENCHMARKS), help="measure this one")
    parser.add_argument("--write-rows", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write_rows:
        rows = importlib.import_module(f"benchmarks.{arguments.only}").rows()
        arguments.write_rows.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
        return
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in [arguments.only] if arguments.only else BENCHMARKS:
        results[name] = measure(name)
        show(name, results[name])
        RESULTS.write_text(
            json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        TABLE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
