"""Memory of a process and all its descendants."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SAMPLES_A_SECOND = 10


def peak_megabytes(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run a command and return the peak memory of all its processes together, in 10⁶ bytes.

    Memory is summed over processes ten times a second; a page shared by n of them counts 1/n for
    each (PSS).

    Args:
        command: program and arguments.
        environment: the command's environment variables.

    Returns:
        (all memory, memory without file pages, which the system reclaims at need).
    """
    process = subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ended = threading.Event()
    peaks = [0, 0]

    def watch() -> None:
        while not ended.wait(1 / SAMPLES_A_SECOND):
            sizes_now = [_kilobytes(number) for number in _tree(process.pid)]
            for place in range(2):
                peaks[place] = max(peaks[place], sum(each[place] for each in sizes_now))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    ended.set()
    watcher.join()
    if status:
        raise RuntimeError(f"{command} ended with {status}")
    return peaks[0] * 1.024e-3, peaks[1] * 1.024e-3


def _tree(root: int) -> Iterator[int]:
    """Yield the running processes of the tree below ``root``, itself included."""
    yield root
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        try:
            children = task.read_text(encoding="utf-8").split()
        except OSError:  # it ended between listing and reading
            continue
        for child in children:
            yield from _tree(int(child))


def _kilobytes(number: int) -> tuple[int, int]:
    """Return (PSS, PSS without file pages) of a process; zeros if it has ended."""
    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {key: int(rest.split()[0]) for key, rest in (line.split(":") for line in lines)}
    return sizes["Pss"], sizes["Pss"] - sizes["Pss_File"]
