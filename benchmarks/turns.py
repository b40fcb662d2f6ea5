"""Processes that take turns, one training step each, so that a busy machine slows all alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

READY, GO = b".", b"g"


class Turns(Callback):
    """In a child: ends every training step by waiting for its next turn."""

    def on_train_batch_end(self, *_: Any) -> None:
        wait_for_turn()


def wait_for_turn() -> None:
    """Tells the parent that a step is done, and waits until another may begin."""
    os.write(int(os.environ["TURNS_DONE"]), READY)
    if not os.read(int(os.environ["TURNS_GO"]), 1):
        os._exit(0)  # the parent has seen enough


class Contestant:
    """A child process that trains step by step, as it is told.

    Args:
        name: what the child does; its command's last words.
        command: Python's arguments.
        threads: it computes with.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self.name = name
        self._done, done = os.pipe()
        go, self._go = os.pipe()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "TURNS_DONE": str(done),
            "TURNS_GO": str(go),
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
        """Waits until the child has started and done its first step."""
        self._wait()

    def step(self) -> float:
        """Seconds of the child's next step."""
        start = time.perf_counter()
        os.write(self._go, GO)
        self._wait()
        return time.perf_counter() - start

    def peak_memory(self) -> float:
        """Largest resident size up to now, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """Ends the child."""
        os.close(self._go)
        self.process.wait()
        os.close(self._done)

    def _wait(self) -> None:
        if not os.read(self._done, 1):
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")


def take_turns(
    commands: dict[str, Sequence[str]],
    rounds: int,
    warm_up: int,
    threads: int,
    at_end: Callable[[dict[str, Contestant]], None] = lambda _: None,
) -> dict[str, list[float]]:
    """Seconds of every step of every child, round by round; the order turns by one each round.

    Args:
        commands: Python's arguments by name.
        rounds: measured steps of each.
        warm_up: steps before, ≥ 1, that are not counted.
        threads: each computes with.
        at_end: called with all children after their last step.
    """
    children = {}
    for name, command in commands.items():  # one after the other: start-up would slow the others
        children[name] = Contestant(name, command, threads)
        children[name].first_step()
    names, times = list(children), {name: [] for name in children}
    for turn in range(warm_up - 1 + rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            seconds = children[name].step()
            if turn >= warm_up - 1:
                times[name].append(seconds)
    at_end(children)
    for child in children.values():
        child.stop()
    return times
