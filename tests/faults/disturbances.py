"""Disturbances of a process at a chosen call: disks fill, processes die, clocks jump."""

import importlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path

import torch

import dograph.graph.graph_solver
from dograph.mixers.fixed import Stratified

PAGE = 4096
BATCH = "dograph.reports.mixture_report:MixtureReport.on_train_batch_end"
CHECKPOINT = "dograph.training.checkpoint_writer:AtomicCheckpoints.save_checkpoint"


def before_call(target, number, action):
    """Calls ``action`` before the ``number``-th call of ``module:name.name`` in this process."""
    module, names = target.split(":")
    *outer, last = names.split(".")
    holder = reduce(getattr, outer, importlib.import_module(module))
    original, calls = getattr(holder, last), itertools.count(1)

    def disturbed(*arguments, **keywords):
        if next(calls) == number:
            action()
        return original(*arguments, **keywords)

    setattr(holder, last, disturbed)


def fill(disk, room=0):
    """Fills a disk up to ``room`` bytes."""
    with suppress(OSError), (Path(disk) / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(PAGE))
    size = (Path(disk) / "filler").stat().st_size
    os.truncate(Path(disk) / "filler", max(0, size - room))


def fills(target, number, disk, room=0):
    """A disk that is full from a call on."""
    return partial(before_call, target, number, partial(fill, disk, room))


def _kill_a_child():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def loses_a_worker(number):
    """A process whose loader worker dies at a batch."""
    return partial(before_call, BATCH, number, _kill_a_child)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies(number, clock=None):
    """A process that dies at a batch, and whose clock is shifted, or stands still at an instant."""
    return partial(_disturb_clock, clock, number)


def _disturb_clock(clock, number):
    if clock is not None:
        begin = time.time()
        real, (shift, stands) = time.time, clock
        time.time = lambda: shift + (begin if stands else real())
    if number:
        before_call(BATCH, number, _die)


def _never(*_, **__):
    raise RuntimeError("no solution, by the test")


def without_solutions():
    """Every solve of the graph fails."""
    dograph.graph.graph_solver.minimise = _never


class NotANumber(Stratified):
    """A user's mixer with a mistake: its weights become NaN after a few steps."""

    def update(self, signals):
        return self.weights * torch.nan if signals.step >= 5 else self.weights


class Disk:
    """A small disk of its own, in memory."""

    def __init__(self, folder, size):
        self.folder = folder
        folder.mkdir()
        self._call("mount", "-t", "tmpfs", "-o", f"size={size}", "none")

    def remount(self, option):
        """E.g. ``size=…``, ``ro`` or ``rw``."""
        self._call("mount", "-o", f"remount,{option}")

    def used(self):
        """Bytes on it."""
        state = os.statvfs(self.folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def free(self):
        """Deletes the filler."""
        (self.folder / "filler").unlink(missing_ok=True)

    def unmount(self):
        """Unmounts it, with everything on it."""
        self._call("umount", "-l")

    def _call(self, *words):
        subprocess.run([*words, str(self.folder)], check=True, capture_output=True)


def group_members(group):
    """Numbers of the living processes of a group."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                members.append(int(path.parent.name))
    return members
