"""Interleaved processes: each does one training step in turn, so a busy machine slows all alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

READY, GO = b".", b"g"


class Interleaved(Callback):
    """In a child process: waits after every training step until the parent asks for the next."""

    def on_train_batch_end(self, *_: Any) -> None:
        wait_for_go()


def wait_for_go() -> None:
    """Tell the parent that a step is done, then wait until it asks for another."""
    os.write(int(os.environ["STEP_DONE"]), READY)
    if not os.read(int(os.environ["STEP_GO"]), 1):
        os._exit(0)  # the parent has closed its end: it needs no more steps


class SteppedProcess:
    """A child process that does one training step whenever it is asked to.

    Args:
        name: the child's name, for errors.
        command: arguments of Python.
        threads: number of threads the child computes with.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self.name = name
        self._done, done = os.pipe()
        go, self._go = os.pipe()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "STEP_DONE": str(done),
            "STEP_GO": str(go),
        }
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            pass_fds=(done, go),
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
        )
        os.close(done)
        os.close(go)

    def first_step(self) -> None:
        """Wait until the child has started and done its first step."""
        self._wait()

    def step(self) -> float:
        """Run the child's next step and return its seconds."""
        start = time.perf_counter()
        os.write(self._go, GO)
        self._wait()
        return time.perf_counter() - start

    def processor_seconds(self) -> float:
        """Return the processor time of all its threads so far."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text(encoding="utf-8").split()[0]) for thread in threads) / 1e9

    def peak_memory(self) -> float:
        """Return the largest resident size so far, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """End the child."""
        os.close(self._go)
        self.process.wait()
        os.close(self._done)

    def _wait(self) -> None:
        if not os.read(self._done, 1):
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")


def interleave_steps(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    warm_up: int,
    threads: int,
    at_end: Callable[[dict[str, SteppedProcess]], None] = lambda _: None,
    processor: bool = False,
) -> dict[str, list[float]]:
    """Run children step by step in turn and return the seconds of every step, by name.

    The order rotates by one each round, so that none always follows the same neighbour.

    Args:
        commands: arguments of Python for each child, by name.
        rounds: number of measured steps of each child.
        warm_up: number of steps before them, ≥ 1.
        threads: number of threads each child computes with.
        at_end: called with all children after their last step, before they end.
        processor: return processor time, which a busy machine changes less.
    """
    children = {}
    for (
        name,
        command,
    ) in commands.items():  # one by one: starting up slows the others
        children[name] = SteppedProcess(name, command, threads)
        children[name].first_step()
    names, times = list(children), {name: [] for name in children}
    for round_number in range(warm_up - 1 + rounds):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            worked = children[name].processor_seconds()
            seconds = children[name].step()
            if processor:
                seconds = children[name].processor_seconds() - worked
            if round_number >= warm_up - 1:
                times[name].append(seconds)
    at_end(children)
    for child in children.values():
        child.stop()
    return times
