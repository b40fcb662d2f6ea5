"""The child's side: trains a segment of steps whenever the parent asks for one, and answers."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from lightning.pytorch import Callback

from benchmarks.gpu import profiling
from benchmarks.gpu.card import peak_memory, synchronise
from benchmarks.gpu.marks import Marks
from benchmarks.gpu.processes import ANSWERED, ASKED, MARKED, PROFILED, TIMED
from benchmarks.gpu.size import Size


class Segments:
    """Counts steps; after each segment it answers the parent and waits for the next command.

    The first segment is a warm-up in which everything is compiled.
    """

    def __init__(self, size: Size, device: str, marks: Marks) -> None:
        self.size, self.device, self.marks = size, device, marks
        self._profiler: Any = None
        for pipe in (ASKED, ANSWERED):  # compiler processes must not hold them open
            os.set_inheritable(int(os.environ[pipe]), False)
        self._begin(TIMED)

    def step_done(self) -> None:
        """Count a step."""
        self._left -= 1
        if self._left:
            return
        synchronise(self.device)
        answer: dict[str, Any] = {"seconds": time.perf_counter() - self._start}
        answer["steps"] = self._steps
        if self._profiler is not None:
            self._profiler.stop()
            answer["profile"] = profiling.read(self._profiler, self._steps, answer["seconds"])
        if self.marks.on:
            answer["parts"] = self.marks.take()
        answer["memory"] = peak_memory(self.device)
        os.write(int(os.environ[ANSWERED]), json.dumps(answer).encode() + b"\n")
        command = os.read(int(os.environ[ASKED]), 1)
        if not command:
            os._exit(0)  # the parent has closed its end: it needs no more segments
        self._begin(command)

    def _begin(self, command: bytes) -> None:
        self._left = self._steps = self.size.profiled if command == PROFILED else self.size.steps
        self.marks.on = command == MARKED
        self._profiler = profiling.profiler(self.device) if command == PROFILED else None
        if self._profiler is not None:
            self._profiler.start()
        synchronise(self.device)
        self._start = time.perf_counter()


class SegmentedRun(Callback):
    """Counts a run's steps; comes after all other callbacks."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def on_train_batch_end(self, *_: Any) -> None:
        self.segments.step_done()
