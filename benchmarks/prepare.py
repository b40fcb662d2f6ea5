"""Megabytes of text a second that `prepare` turns into tokens, and its peak memory.

    python benchmarks/prepare.py --megabytes 20 100

Writes JSONL corpora of four domains from the Python files of this environment into a temporary
folder and prepares them in processes of their own, one after the other.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from rich.console import Console
from rich.table import Table

DOMAINS = 4
PREPARE = """
import sys
from dograph import CorpusSettings, prepare
prepare(CorpusSettings(source=sys.argv[1], store=sys.argv[2]), progress=False)
"""


def texts() -> Iterator[str]:
    """Python files without end; each round marks them, so that none is a duplicate."""
    files = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    for number, path in enumerate(cycle(files)):
        yield f"# round {number // len(files)}\n{path.read_text(errors='ignore')}"


def write_corpus(folder: Path, megabytes: int) -> float:
    """Fills four JSONL files in turn; the megabytes of text written."""
    written = 0
    files = [(folder / f"domain_{index}.jsonl").open("w") for index in range(DOMAINS)]
    for file, text in zip(cycle(files), texts(), strict=False):
        file.write(json.dumps({"text": text}) + "\n")
        written += len(text.encode(errors="ignore"))
        if written > megabytes * 1_000_000:
            break
    for file in files:
        file.close()
    return written / 1e6


def measure(megabytes: int) -> tuple[float, float, float]:
    """(megabytes, seconds, largest process's peak memory in MB) of one preparation."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "text"
        source.mkdir()
        written = write_corpus(source, megabytes)
        start = time.perf_counter()
        command = [sys.executable, "-c", PREPARE, str(source), str(Path(scratch) / "store")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    return written, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Prints a line for each size, smallest first, since peak memory is a running maximum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 100])
    table = Table(title="prepare, from JSONL to tokens, start-up and tokenizer training included")
    for column in ("MB of text", "seconds", "MB/s", "peak memory, MB"):
        table.add_column(column, justify="right")
    for megabytes in sorted(parser.parse_args().megabytes):
        written, seconds, memory = measure(megabytes)
        speed = f"{written / seconds:.2f}"
        table.add_row(f"{written:.0f}", f"{seconds:.1f}", speed, f"{memory:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
