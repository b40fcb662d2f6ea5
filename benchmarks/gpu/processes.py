"""The parent's side: measured processes, whose segments take turns."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
TIMED, MARKED, PROFILED = b"t", b"m", b"p"
"""Commands: what a process trains its next segment for."""
ASKED, ANSWERED = "SEGMENT_ASKED", "SEGMENT_ANSWERED"
"""Environment variables with the pipes' file descriptors."""
LONGEST_SEGMENT = 60.0
"""Seconds after which a process that does not answer is given up."""
COMPILE_THREADS = "4"
"""Compiler processes of each: several compile at once."""
SHOWN = 1500
"""Characters of a failed process's errors that are kept."""


class ProcessFailedError(RuntimeError):
    """A measured process ended, or did not answer in time; holds the end of its errors."""


class MeasuredProcess:
    """A child process that trains a segment of steps whenever it is asked to.

    Args:
        name: of the process.
        arguments: of ``benchmarks.gpu.child``, without its folder.
        folder: where it may write.
    """

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(parents=True)
        asked, self._ask = os.pipe()
        self._answers, answered = os.pipe()
        environment = {
            "TORCHINDUCTOR_COMPILE_THREADS": COMPILE_THREADS,
            **os.environ,
            ASKED: str(asked),
            ANSWERED: str(answered),
        }
        command = ["-m", "benchmarks.gpu.child", *arguments, "--folder", str(folder)]
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                pass_fds=(asked, answered),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=ROOT,
            )
        os.close(asked)
        os.close(answered)
        self._received = b""

    @property
    def _errors(self) -> Path:
        return self.folder / "errors.txt"

    def segment(self, command: bytes = TIMED) -> dict[str, Any]:
        """Train a segment and return what the process says of it."""
        os.write(self._ask, command)
        return self.answer(LONGEST_SEGMENT)

    def answer(self, seconds: float) -> dict[str, Any]:
        """Wait for the process's next answer."""
        until = time.monotonic() + seconds
        while b"\n" not in self._received:
            left = until - time.monotonic()
            if left < 0:
                raise self._failure(f"no answer within {seconds:.0f} s")
            ended = self.process.poll() is not None
            if not select.select([self._answers], [], [], 0 if ended else min(left, 1.0))[0]:
                if ended:
                    raise self._failure(f"ended with exit code {self.process.returncode}")
                continue
            received = os.read(self._answers, 1 << 16)
            if not received:
                raise self._failure(f"ended with exit code {self.process.wait()}")
            self._received += received
        line, self._received = self._received.split(b"\n", 1)
        return dict(json.loads(line))

    def stop(self) -> None:
        """End the process."""
        if self._ask < 0:
            return
        os.close(self._ask)
        self._ask = -1
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._answers)

    def _failure(self, what: str) -> ProcessFailedError:
        errors = self._errors.read_text(encoding="utf-8", errors="replace")[-SHOWN:]
        return ProcessFailedError(f"{self.name}: {what}\n{errors}")


class Processes:
    """Measured processes by name; those that fail are left out, and why is kept.

    Attributes:
        failures: what became of a process, by its name.
    """

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self._folder, self._arguments = folder, arguments
        self._running: dict[str, MeasuredProcess] = {}
        self.failures: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Of those that run."""
        return list(self._running)

    def start(self, names: Sequence[str], seconds: float) -> dict[str, float]:
        """Start processes together; return the seconds to each one's end of warm-up."""
        began = time.monotonic()
        for name in names:
            folder = self._folder / name.replace(" ", "_")
            self._running[name] = MeasuredProcess(name, [name, *self._arguments], folder)
        ready = {}
        for name in names:
            left = max(began + seconds - time.monotonic(), 1.0)
            if self._try(name, lambda process, left=left: process.answer(left)) is not None:
                ready[name] = time.monotonic() - began
        return ready

    def segments(self, command: bytes) -> dict[str, dict[str, Any]]:
        """Train one segment of each process, one after the other."""
        answers = {name: self._try(name, lambda p: p.segment(command)) for name in self.names}
        return {name: answer for name, answer in answers.items() if answer is not None}

    def interleave(self, rounds: int, seconds: float) -> dict[str, list[float]]:
        """Time segments of all processes in turn; return the seconds of each one's segments.

        The order rotates by one each round, so that none always follows the same neighbour.

        Args:
            rounds: maximum number of segments of each.
            seconds: after which no new round begins, but for the first.
        """
        times: dict[str, list[float]] = {name: [] for name in self.names}
        until = time.monotonic() + seconds
        for number in range(rounds):
            if number and time.monotonic() > until:
                break
            names = self.names
            shift = number % max(len(names), 1)
            for name in names[shift:] + names[:shift]:
                answer = self._try(name, lambda process: process.segment())
                if answer is not None:
                    times[name].append(answer["seconds"])
        return {name: each for name, each in times.items() if name in self._running}

    def stop(self, names: Sequence[str] | None = None) -> None:
        """End these processes, or all."""
        for name in list(names if names is not None else self._running):
            process = self._running.pop(name, None)
            if process is not None:
                process.stop()

    def _try(self, name: str, action: Any) -> Any:
        try:
            return action(self._running[name])
        except (ProcessFailedError, OSError) as error:
            self.failures[name] = str(error)
            self.stop([name])
            return None
