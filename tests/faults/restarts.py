"""A command that is killed at chosen instants and started again until it ends by itself."""

import os
import random
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from subprocess_runner import CONTEXT, LONGEST, RUNNING, start

PHASES = ("starting", "preparing", "training", "evaluating", "checkpointing")
LATEST = {None: 3.0, "preparing": 0.8, "training": 0.5, "evaluating": 0.02, "checkpointing": 0.01}
"""Latest kill, in seconds after a phase begins; after the start for None."""


def _announced(function, phase, name):
    """The function, which announces that its phase begins, and restores the one before."""

    def announced(*arguments, **keywords):
        before, phase.value = phase.value, PHASES.index(name)
        try:
            return function(*arguments, **keywords)
        finally:
            phase.value = before

    return announced


def _announce_phases(phase):
    """Makes this process say in which phase it is."""
    import lightning.pytorch.trainer.trainer as trainers
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

    import dograph.experiments.plan
    import dograph.experiments.run
    from dograph.training.checkpoint_writer import AtomicCheckpoints

    for holder, function, name in (
        (dograph.experiments.run, "prepare", "preparing"),
        (dograph.experiments.plan, "prepare", "preparing"),
        (AtomicCheckpoints, "save_checkpoint", "checkpointing"),
        (_EvaluationLoop, "run", "evaluating"),
        (trainers.Trainer, "fit", "training"),
    ):
        setattr(holder, function, _announced(getattr(holder, function), phase, name))


def _fork_members():
    """Makes this process fork a swarm's runs from a warm process: cold ones outlast all kills."""
    from warm import start_warm_run

    import dograph.experiments.sweep

    dograph.experiments.sweep.start_run = start_warm_run


@dataclass
class Restarts:
    """Runs a command again and again until it ends by itself.

    Args:
        arguments: of `dograph run`.
        log: file for all output.
        random: decides when each kill comes.
        kills: phase of each kill so far.
    """

    arguments: list
    log: Path
    random: random.Random
    kills: list = field(default_factory=list)

    def run(self, targets):
        """Starts once for each target, to be killed there, then once to the end.

        Args:
            targets: phases to be killed in, or None for any instant.
        """
        for target in [*targets, "never"]:
            phase = CONTEXT.Value("i", 0)
            process, ended = start(
                ["run", *self.arguments], self.log, partial(_announce_phases, phase), _fork_members
            )
            if self._waits_for(process, phase, ended, target):
                where = PHASES[phase.value] if ended.value == RUNNING else "ended"
                os.killpg(process.pid, signal.SIGKILL)
                process.join(10)
                self.kills.append(where)
                continue
            process.join(LONGEST)
            if ended.value != 0:
                raise AssertionError(f"exit code {ended.value}: {self.log.read_text()[-3000:]}")
            return

    def _waits_for(self, process, phase, ended, target):
        """Whether the instant to kill came while the process lived."""
        if target == "never":
            return False
        moment = self.random.uniform(0, LATEST[target])
        since = time.monotonic() if target is None else None
        # Not always the first time; the corpus is prepared just once.
        passes = 0 if target in (None, "preparing") else self.random.randrange(3)
        inside = False
        deadline = time.monotonic() + LONGEST
        while process.is_alive() and time.monotonic() < deadline:
            now, here = time.monotonic(), PHASES[phase.value] == target
            if since is None and here and not inside:
                passes -= 1
                since = now if passes < 0 else None
            inside = here
            begun = phase.value > 0 or ended.value != RUNNING
            if since is not None and now - since >= moment and begun:
                return process.is_alive()
            time.sleep(0.0005)
        return False
