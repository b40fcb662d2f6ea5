"""Measure training on one GPU in the minutes that are given; without a GPU, toy models on the CPU.

python -m benchmarks.gpu                           # 8 minutes, into docs/results/gpu
python -m benchmarks.gpu --minutes 4 --out figures
python -m benchmarks.gpu --device cpu --size toy   # a trial of the script itself
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.card import card_name, peak_tflops
from benchmarks.gpu.parts import PARTS, Bench, Part
from benchmarks.gpu.processes import ROOT, Processes
from benchmarks.gpu.report import OUT, TABLES, write
from benchmarks.gpu.size import CORPUS, RECIPES, RUNS, SIZES

SHORTEST = 10.0
"""Seconds that must be left for a part to begin."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="the whole command ends within them")
    add("--out", type=Path, default=OUT, help="folder of the tables")
    add("--device", choices=["cpu", "cuda"], default=device)
    add("--size", choices=list(SIZES), help="default: full on a GPU, else toy")
    add("--store", type=Path, help="a prepared corpus; default: the environment's text")
    add("--peak", type=float, help="of the card in TFLOP/s, where it is not known")
    add("--only", choices=list(PARTS), nargs="+", default=list(PARTS), help="measure these parts")
    return parser.parse_args()


def about(given: argparse.Namespace) -> dict[str, Any]:
    """What the results are of: card, versions, model, day."""
    return {
        "command": "python -m benchmarks.gpu",
        "card": card_name(given.device),
        "model": f"{SIZES[given.size].name}, {SIZES[given.size].batch} × "
        f"{SIZES[given.size].context:,} tokens",
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "seconds": 0,
    }


def corpus_words(store: Path | None, folder: Path) -> str:
    """The prepared corpus: the given one, else the environment's text, prepared now."""
    if store is not None:
        return str(store.resolve())
    made = folder / "store"
    words = [str(RECIPES / RUNS["run"]), *CORPUS, f"corpus.store={made}"]
    command = [sys.executable, "-m", "dograph", "prepare", *words]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return str(made)


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure part after part until the time is over; save what there is after each."""
    began = time.monotonic()
    results: dict[str, Any] = {"about": about(given), "parts": {}}
    store = corpus_words(given.store, folder)
    options = ["--size", given.size, "--device", given.device, "--store", store]
    processes = Processes(folder, options)
    peak = given.peak or peak_tflops(results["about"]["card"])
    bench = Bench(SIZES[given.size], given.device, peak, folder, options, processes)
    try:
        for name in given.only:
            part, share = PARTS[name]
            seconds = 60 * given.minutes * share - (time.monotonic() - began)
            results["parts"][name] = run_part(name, part, bench, seconds)
            results["about"]["seconds"] = round(time.monotonic() - began)
            write(results, given.out)
            print(f"{name}: {results['parts'][name]['seconds']} s", file=sys.stderr, flush=True)
    finally:
        processes.stop()
    return results


def run_part(name: str, part: Part, bench: Bench, seconds: float) -> dict[str, Any]:
    """Measure a part; whatever goes wrong is written down, and the next part begins."""
    began = time.monotonic()
    found: dict[str, Any] = {}
    bench.processes.failures.clear()
    try:
        if seconds < SHORTEST:
            raise TimeoutError("no time was left")
        found = part(bench, seconds)
    except Exception as error:
        bench.processes.failures[name] = f"{type(error).__name__}: {error}"
    if not bench.size.judged and "rows" in found:
        found["rows"] = [replace(row, target="", holds=None) for row in found["rows"]]
    spent = round(time.monotonic() - began)
    return {**found, "failures": dict(bench.processes.failures), "seconds": spent}


def main() -> None:
    """Measure, print and save."""
    given = arguments()
    if given.size is None:
        given.size = "full" if given.device == "cuda" else "toy"
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder))
    print((given.out / TABLES).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
