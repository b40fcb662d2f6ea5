"""The benchmark's files: everything as JSON, the tables as Markdown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row

OUT = Path(__file__).parent.parent.parent / "docs" / "results" / "gpu"
"""Where results are kept."""
RESULTS, TABLES = "gpu.json", "gpu.md"
INTRODUCTION = """\
## One GPU

`python -m benchmarks.gpu` needs at most eight minutes (`--minutes`) and one GPU; without one it
tries itself out on toy models. It trains GPT-2 124 M (16 × 1,024 tokens, vocabulary padded to
50,304, bf16-mixed, compiled) by the shipped recipes with `compose.trainer=gpu`, and in a loop
written by hand as nanoGPT's is: the same network, compiled whole with its loss. Each trains in a
process of its own; segments of 40 steps take turns, and figures are medians. The schedule is timed
while it reads gradients, at every step; by default it does so in a run's first hundred or so, so
that its share of a whole run stands beside. After these it marks
the parts of a step by CUDA events, counts kernels by torch's profiler, reads peak memory, and
compares losses of CPU and GPU. MFU is (6 N + 12 L T d) · tokens/s over the card's dense bf16 peak
(PaLM, arXiv 2204.02311, appendix B; the H100's 989 TFLOP/s from NVIDIA's data sheet; `--peak`
gives another). Each part has a deadline and is saved when it ends, into docs/results/gpu/gpu.json
and gpu.md.
"""
NOT_YET = "Not measured yet: no GPU was at hand.\n"
HEADINGS = {
    "speed": "Speed",
    "mixers": "DoGraph and its schedule",
    "agreement": "CPU and GPU",
}


def write(results: dict[str, Any], folder: Path) -> None:
    """Write all results so far."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False, default=_row)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")
    (folder / TABLES).write_text(markdown(json.loads(text)), encoding="utf-8")


def _row(value: Any) -> Any:
    if isinstance(value, Row):
        return asdict(value)
    raise TypeError(f"{value!r} cannot be written")


def markdown(results: dict[str, Any]) -> str:
    """All tables of results as ``write`` writes them."""
    about = results["about"]
    lines = ["# Training on one GPU", "", subtitle(about), ""]
    for name, part in results["parts"].items():
        lines += [f"## {HEADINGS.get(name, name)}", ""]
        if part.get("rows"):
            lines += rows_table([Row(**row) for row in part["rows"]])
        lines += [f"**{who} failed**: {_one_line(why)}\n" for who, why in part["failures"].items()]
        measured = part.get("measured", {})
        if measured.get("parts"):
            lines += parts_table(measured["parts"])
        if measured.get("profile"):
            lines += profile_table(measured["profile"])
    return "\n".join(lines)


def section(folder: Path = OUT) -> list[str]:
    """The section of benchmarks/README.md: how it is measured, and the last results' rows."""
    path = folder / RESULTS
    if not path.exists():
        return [INTRODUCTION, NOT_YET]
    results = json.loads(path.read_text(encoding="utf-8"))
    rows = [Row(**row) for part in results["parts"].values() for row in part.get("rows", [])]
    return [INTRODUCTION, subtitle(results["about"]), "", *rows_table(rows)]


def subtitle(about: dict[str, Any]) -> str:
    """Command, card, versions and time of results."""
    return (
        f"`{about['command']}`: {about['seconds']} s, {about['date']}, {about['card']}, torch "
        f"{about['torch']}, {about['model']}"
    )


def rows_table(rows: list[Row]) -> list[str]:
    """Quantities, figures and targets."""
    table = []
    for row in rows:
        holds = {True: "yes", False: "**no**", None: ""}[row.holds]
        table.append([row.quantity, row.figure, row.target, holds, row.note])
    return _table(["quantity", "figure", "target", "holds", ""], table)


def parts_table(parts: dict[str, Any]) -> list[str]:
    """Milliseconds of a step's parts, by process: of the device's time, and of the host's."""
    names = list(parts)
    rows = []
    for part in dict.fromkeys(part for each in parts.values() for part in each):
        cells = [parts[name].get(part) for name in names]
        rows.append([part, *(_milliseconds(cell) for cell in cells)])
    totals = [sum(part["mean"] for part in parts[name].values()) for name in names]
    rows.append(["all, means", *(f"{total:.2f}" for total in totals)])
    caption = (
        "Milliseconds a step, medians: between CUDA events where there is a GPU, and in brackets "
        "by the host's clock."
    )
    return [caption, "", *_table(["part of a step", *names], rows)]


def _milliseconds(cell: dict[str, float] | None) -> str:
    return "" if cell is None else f"{cell['milliseconds']:.2f} ({cell['host']:.2f})"


def profile_table(profiles: dict[str, Any]) -> list[str]:
    """Milliseconds of kernels by kind, the device's idle time, and the host's waits."""
    names = list(profiles)
    kinds = dict.fromkeys(kind for each in profiles.values() for kind in each["kinds"])
    rows = [
        [kind, *(f"{profiles[name]['kinds'].get(kind, 0):.2f}" for name in names)] for kind in kinds
    ]
    idle = {"no kernel running": lambda p: p["step"] - p["busy"]} if kinds else {}
    for label, read in {
        **idle,
        "step, under the profiler": lambda p: p["step"],
        "kernels launched": lambda p: p["launches"],
        "waits for the device": lambda p: p["waits"],
        "values read by the host": lambda p: p["items"],
    }.items():
        rows.append([label, *(f"{read(profiles[name]):.2f}" for name in names)])
    caption = "Milliseconds of kernels and counts a step, by torch's profiler."
    return [caption, "", *_table(["", *names], rows)]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return [*lines, *("| " + " | ".join(row) + " |" for row in cells), ""]


def _one_line(text: str) -> str:
    return " ".join(text.split())[-300:]
