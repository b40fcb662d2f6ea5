"""`prepare` against `datasets.map` with `tokenizers`: megabytes of text a second, and memory.

Both read the same JSONL files of four domains, made from the Python files of this environment, and
use the same tokenizer and two processes. Theirs (see `benchmarks.with_datasets`) writes one file of
tokens a domain; ours also drops duplicates, splits validation off, writes where documents end and
digests of everything, and makes all of it safe against a loss of power.
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
"""Megabytes of text whose preparation's memory is measured."""
THEIR_SIZES = (10, 100, 300)
FLAT = 1.25
"""Of memory: the largest size's over the smallest's, which fills no chunk of 32 MiB yet."""
OURS = """
import sys
from dograph import CorpusSettings, prepare
source, store, tokenizer = sys.argv[1:]
prepare(CorpusSettings(source=source, store=store, tokenizer=tokenizer), progress=False)
"""


def texts() -> Iterator[str]:
    """Python files without end; each round marks them, so that none is a duplicate."""
    files = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    for number, path in enumerate(cycle(files)):
        yield f"# round {number // len(files)}\n{path.read_text(errors='ignore')}"


def write_corpus(folder: Path, megabytes: int) -> float:
    """Fills four JSONL files in turn; the megabytes of text written."""
    folder.mkdir()
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


class Sides:
    """Both ways from one folder of text to tokens, as commands in a scratch folder."""

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
        """The command; what an earlier one left is deleted first."""
        self._clean()
        arguments = [str(source), str(self._scratch / "out"), str(self._tokenizer)]
        return [sys.executable, "-c", OURS, *arguments]

    def theirs(self, source: Path) -> list[str]:
        """The same with `datasets`."""
        self._clean()
        arguments = [str(source), str(self._scratch / "out"), str(self._tokenizer)]
        return [sys.executable, "-m", "benchmarks.with_datasets", *arguments]

    def run(self, command: list[str]) -> None:
        """Runs a command to its end, without what it prints."""
        silent = subprocess.DEVNULL
        subprocess.run(command, env=self.environment, stdout=silent, stderr=silent, check=True)

    def _clean(self) -> None:
        for name in ("out", "cache"):
            shutil.rmtree(self._scratch / name, ignore_errors=True)


def speed(sides: Sides, source: Path, megabytes: float) -> Row:
    """Both, turn by turn."""
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
        else ". What it falls short by: some four seconds of processor time, of which the packing "
        "process's import of litdata with torch takes 1.4 and eight calls of optimize one; text "
        "is read and compared for duplicates before any of it is tokenised"
    )
    rates = {name: f"{megabytes / statistics.median(times[name]):.1f}" for name in times}
    return Row(
        "MB of text a second over datasets.map with tokenizers",
        f"{ratio:.2f} ({rates['ours']} / {rates['theirs']} MB/s)",
        "≥ 1.0",
        ratio >= 1,
        f"{megabytes:.0f} MB of JSONL in {DOMAINS} domains, the same tokenizer and two processes, "
        f"start-up included on both sides; {ROUNDS} turns, medians. Ours also drops duplicates, "
        f"splits validation off, seals and flushes{reason}",
    )


def memory(sides: Sides, scratch: Path) -> list[Row]:
    """Peaks of both by size of the input."""
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
            f"{growth:.2f} times. All processes together, a page that n share counted 1/n for each "
            f"(PSS); without pages of files {_each(round(own) for _, own in ours.values())} MB. "
            "What grows is litdata's chunk in the making, up to 32 MiB in each of two processes, "
            "full after some 60 MB of text each; then the index of duplicates, 35 bytes a document "
            "up to 32 MiB",
        ),
        Row(
            f"the same of datasets.map for {_each(THEIR_SIZES)} MB",
            f"{_each(round(total) for total, _ in theirs.values())} MB",
            note=f"without pages of files {_each(round(own) for _, own in theirs.values())} MB; "
            "1000 MB would take longer than this benchmark may",
        ),
    ]


def _each(values: Iterable[object]) -> str:
    return " / ".join(map(str, values))


def rows() -> list[Row]:
    """Speed, then memory."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sides = Sides(scratch)
        source = scratch / "text"
        megabytes = write_corpus(source, MEGABYTES)
        return [speed(sides, source, megabytes), *memory(sides, scratch)]
