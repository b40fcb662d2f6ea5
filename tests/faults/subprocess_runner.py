"""One `dograph` command in a process of its own, in bounded time: how it ended, what it printed."""

import multiprocessing
import os
import resource
import signal
from functools import partial
from pathlib import Path
from typing import NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
# A warm process is forked for each command: importing would take longer than the command.
CONTEXT.set_forkserver_preload(
    ["dograph.experiments.stages", "dograph.cli.main", "subprocess_runner", "restarts"]
)
LONGEST = 180.0
"""Seconds until a command is killed."""
MOST_MEMORY = 12 * 2**30
"""Bytes of address space of a bounded command: a larger request fails instead of the machine."""
SMALL = """\
name: {name}
mixer: {{class_path: dograph.mixers.{mixer}, init_args: {arguments}}}
model: {{config: {{n_layer: 1, n_embd: 16, n_head: 2}}, warmup: 2}}
data: {{context: 16, batch_size: 8, validation_sequences: 4}}
trainer: {{accelerator: cpu, max_steps: {steps}, val_check_interval: {every},
  log_every_n_steps: {every}, enable_progress_bar: false, enable_model_summary: false}}
report: {{every: 2, figures_every: 0, checkpoint_every: 2, checkpoints_kept: 3}}
corpus: {{source: {corpus.source}, store: {corpus.store},
  vocab_size: 300, validation_fraction: 0.2}}
"""
"""A recipe that runs in a second."""
RUNNING = -1000
"""In the place of an exit code until there is one."""


class Result(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code; None if it did not end in time.
        text: what it printed.
        group: its process group.
    """

    code: int | None
    text: str
    group: int

    @property
    def refused(self):
        """Whether it ended with a message for its user."""
        return self.code == 2 and "error: " in self.text and "Traceback" not in self.text


def start(words, log, *before):
    """Starts a `dograph` command.

    Args:
        words: the command and its arguments.
        log: file to append its output to.
        before: functions that are called in the process before its command.

    Returns:
        the process, and the shared integer that becomes its exit code.
    """
    # A process that was started by one of several threads may be waited for wrongly.
    ended = CONTEXT.Value("i", RUNNING)
    process = CONTEXT.Process(target=_run, args=(words, str(log), ended, before))
    process.start()
    return process, ended


def _run(words, log, ended, before):
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the system's own, as for any command
    with Path(log).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    from dograph.cli.main import main

    torch.set_num_threads(1)
    for function in before:
        function()
    ended.value = main(words)


def run_command(arguments, log, before=None, command="run", seconds=LONGEST):
    """Runs a `dograph` command to its end; what it started ends with it if that takes too long.

    Args:
        arguments: the command's.
        log: file for its output, emptied first.
        before: called in the process before its command.
        command: its name.
        seconds: until it is killed.
    """
    Path(log).write_bytes(b"")
    process, ended = start([command, *arguments], log, *([before] if before else []))
    process.join(seconds)
    code = None
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    else:
        code = process.exitcode if ended.value == RUNNING else ended.value
    return Result(code, Path(log).read_text(errors="replace"), process.pid)


def run_bounded(words, log, seconds=60.0):
    """Runs a `dograph` command in its log's folder, with bounded memory."""
    command, *arguments = words
    return run_command(arguments, log, partial(_bound, Path(log).parent), command, seconds)


def _bound(folder):
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
