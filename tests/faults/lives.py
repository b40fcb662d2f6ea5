"""A command's lives: started in a process of its own, killed at a chosen instant, started again."""

import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

PHASES = ("starting", "preparing", "training", "evaluating", "checkpointing", "ended")
CONTEXT = multiprocessing.get_context("forkserver")
# A warm process is forked for each life: importing would take longer than the run.
CONTEXT.set_forkserver_preload(
    ["dograph.experiments.run", "dograph.experiments.stages", "dograph.cli.main", "lives"]
)
LONGEST = 180.0
LATEST = {None: 3.0, "preparing": 0.8, "training": 0.5, "evaluating": 0.02, "checkpointing": 0.01}
"""Seconds into a phase, or into a life, at which it may end."""


def _tell(phase, name):
    phase.value = PHASES.index(name)


def _announced(function, phase, name):
    """The function, which says that its phase has begun, and what it came back to."""

    def announced(*arguments, **keywords):
        before = PHASES[phase.value]
        _tell(phase, name)
        try:
            return function(*arguments, **keywords)
        finally:
            _tell(phase, before)

    return announced


def _live(arguments, phase, log, before=None, command="run"):
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the system's own, as of any command
    with Path(log).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import lightning.pytorch.trainer.trainer as trainers
    import torch
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

    import dograph.experiments.run
    import dograph.experiments.stages
    from dograph.cli.main import main
    from dograph.training.checkpointing import AtomicCheckpoints

    torch.set_num_threads(1)
    for module in (dograph.experiments.run, dograph.experiments.stages):
        module.prepare = _announced(module.prepare, phase, "preparing")
    AtomicCheckpoints.save_checkpoint = _announced(
        AtomicCheckpoints.save_checkpoint, phase, "checkpointing"
    )
    _EvaluationLoop.run = _announced(_EvaluationLoop.run, phase, "evaluating")
    trainers.Trainer.fit = _announced(trainers.Trainer.fit, phase, "training")
    if before is not None:
        before()
    code = main([command, *arguments])
    _tell(phase, "ended")
    sys.exit(code)


def live(arguments, log, before=None, command="run"):
    """One life to its end: (exit code, what it printed, its process group).

    Args:
        arguments: of the command.
        log: file to print to, anew.
        before: called in the process before its command.
        command: of `dograph`.
    """
    log.write_bytes(b"")
    phase = CONTEXT.Value("i", 0)
    process = CONTEXT.Process(target=_live, args=(arguments, phase, str(log), before, command))
    process.start()
    process.join(LONGEST)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"no end within {LONGEST} s: {log.read_text()[-3000:]}")
    return process.exitcode, log.read_text(errors="replace"), process.pid


@dataclass
class Lives:
    """Runs a command again and again until it ends by itself.

    Args:
        arguments: of `dograph run`.
        log: file that all lives print to.
        random: decides when each dies.
        kills: (phase, seconds into it or into its life) of each kill so far.
    """

    arguments: list
    log: Path
    random: random.Random
    kills: list = field(default_factory=list)

    def run(self, targets):
        """Lives once for each target, then to the end.

        Args:
            targets: phases to be killed in, or None for any instant of a life.
        """
        for target in [*targets, "never"]:
            phase = CONTEXT.Value("i", 0)
            process = CONTEXT.Process(target=_live, args=(self.arguments, phase, str(self.log)))
            process.start()
            if self._waits_for(process, phase, target):
                where = PHASES[phase.value]
                os.killpg(process.pid, signal.SIGKILL)
                process.join(10)
                self.kills.append(where)
                continue
            process.join(LONGEST)
            if process.exitcode != 0:
                raise AssertionError(
                    f"exit code {process.exitcode}: {self.log.read_text()[-3000:]}"
                )
            return

    def _waits_for(self, process, phase, target):
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
            if since is not None and now - since >= moment and phase.value > 0:
                return process.is_alive()
            time.sleep(0.0005)
        return False
