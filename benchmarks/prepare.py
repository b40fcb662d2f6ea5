"""`prepare` against `datasets.map` with `tokenizers`: megabytes of text a second, and memory.

Both read the same JSONL files of four domains, made from the Python files of this environment, and
use the same tokenizer and two processes. Theirs (see `benchmarks.with_datasets`) writes one token
file a domain; ours also drops duplicates, splits off validation documents, writes where documents
end, writes checksums, and flushes everything to the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path

from benchmarks.measuring import Row, interleaved, median_ratio
from benchmarks.process_tree import peak_megabytes
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings

DOMAINS = 4
MEGABYTES = 50
ROUNDS = 3
SIZES = (10, 100, 1000)
"""Megabytes of text for which memory is measured."""
THEIR_SIZES = (10, 100, 300)
FLAT = 1.25
"""Largest memory at the largest size over that at the smallest, which fills no 32 MiB chunk."""
OURS = """
import sys
from dograph import CorpusSettings, prepare
source, store, tokenizer = sys.argv[1:]
prepare(CorpusSettings(source=source, store=store, tokenizer=tokenizer), progress=False)
"""


def texts() -> Iterator[str]:
    """Yield Python files without end; a mark in each round keeps them from being duplicates."""
    files = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    for number, path in enumerate(cycle(files)):
        yield f"# round {number // len(files)}\n{path.read_text(encoding='utf-8', errors='ignore')}"


def write_corpus(folder: Path, megabytes: int) -> float:
    """Fill four JSONL files alternately and return the megabytes of text written."""
    folder.mkdir()
    written = 0
    files = [
        (folder / f"domain_{index}.jsonl").open("w", encoding="utf-8") for index in range(DOMAINS)
    ]
    for file, text in zip(cycle(files), texts(), strict=False):
        file.write(json.dumps({"text": text}) + "\n")
        written += len(text.encode(errors="ignore"))
        if written > megabytes * 1_000_000:
            break
    for file in files:
        file.close()
    return written / 1e6


class Sides:
    """The commands of both sides, from one folder of text to tokens in a scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._tokenizer = scratch / "tokenizer.json"
        small = scratch / "for_tokenizer"
        write_corpus(small, 10)
        store = prepare(CorpusSettings(str(small), store=str(scratch / "first")), progress=False)
        shutil.copyfile(store.path / "tokenizer.json", self._tokenizer)
        self.environment = {
            **os.environ,
            "HF_HOME": str(scratch / "cache"),
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TOKENIZERS_PARALLELISM": "false",  # two processes, each on a core of its own
        }

    def ours(self, source: Path) -> list[str]:
        """Delete earlier output and return our command."""
        self._clean()
        arguments = [str(source), str(self._scratch / "out"), str(self._tokenizer)]
        return [sys.executable, "-c", OURS, *arguments]

    def theirs(self, source: Path) -> list[str]:
        """Delete earlier output and return the command with `datasets`."""
        self._clean()
        arguments = [str(source), str(self._scratch / "out"), str(self._tokenizer)]
        return [sys.executable, "-m", "benchmarks.with_datasets", *arguments]

    def run(self, command: list[str]) -> None:
        """Run a command silently to its end."""
        silent = subprocess.DEVNULL
        subprocess.run(command, env=self.environment, stdout=silent, stderr=silent, check=True)

    def _clean(self) -> None:
        for name in ("out", "cache"):
            shutil.rmtree(self._scratch / name, ignore_errors=True)


def speed(sides: Sides, source: Path, megabytes: float) -> Row:
    """Compare both, interleaved."""
    times = interleaved(
        {
            "ours": lambda: sides.run(sides.ours(source)),
            "theirs": lambda: sides.run(sides.theirs(source)),
        },
        ROUNDS,
    )
    ratio = median_ratio(times["theirs"], times["ours"])
    reason = (
        ""
        if ratio >= 1
        else ". The difference is about four seconds of processor time: 1.4 for the tokenising "
        "process's import of litdata with torch, one for eight calls of optimize; and text is read "
        "and compared for duplicates before any of it is tokenised"
    )
    rates = {name: f"{megabytes / statistics.median(times[name]):.1f}" for name in times}
    return Row(
        "MB of text a second over datasets.map with tokenizers",
        f"{ratio:.2f} ({rates['ours']} / {rates['theirs']} MB/s)",
        "≥ 1.0",
        ratio >= 1,
        f"{megabytes:.0f} MB of JSONL in {DOMAINS} domains, the same tokenizer and two processes, "
        f"start-up included on both sides; medians of {ROUNDS} rounds. Ours also drops duplicates, "
        f"splits off validation, writes checksums and flushes{reason}",
    )


def memory(sides: Sides, scratch: Path) -> list[Row]:
    """Measure the peak memory of both by size of the input."""
    ours: dict[int, tuple[float, float]] = {}
    theirs: dict[int, tuple[float, float]] = {}
    for size in sorted({*SIZES, *THEIR_SIZES}):
        source = scratch / f"text_{size}"
        write_corpus(source, size)
        if size in SIZES:
            ours[size] = peak_megabytes(sides.ours(source), sides.environment)
        if size in THEIR_SIZES:
            theirs[size] = peak_megabytes(sides.theirs(source), sides.environment)
        shutil.rmtree(source)
    growth = ours[SIZES[-1]][0] / ours[SIZES[0]][0]
    return [
        Row(
            f"peak memory of prepare for {_each(SIZES)} MB of text",
            f"{_each(round(total) for total, _ in ours.values())} MB",
            f"{SIZES[-1]} MB ≤ {FLAT} times {SIZES[0]} MB",
            growth <= FLAT,
            f"{growth:.2f} times. Sum over processes, a page shared by n counted 1/n for each "
            f"(PSS); without file pages {_each(round(own) for _, own in ours.values())} MB. "
            "Litdata's unfinished chunk grows up to 32 MiB in each of two processes, full after "
            "about 60 MB of text each; the index of duplicates grows by 35 bytes a document up to "
            "32 MiB",
        ),
        Row(
            f"peak memory of datasets.map for {_each(THEIR_SIZES)} MB of text",
            f"{_each(round(total) for total, _ in theirs.values())} MB",
            note=f"without file pages {_each(round(own) for _, own in theirs.values())} MB; "
            "1000 MB would exceed this benchmark's time",
        ),
    ]


def _each(values: Iterable[object]) -> str:
    return " / ".join(map(str, values))


def rows() -> list[Row]:
    """Measure speed, then memory."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sides = Sides(scratch)
        source = scratch / "text"
        megabytes = write_corpus(source, MEGABYTES)
        return [speed(sides, source, megabytes), *memory(sides, scratch)]
