"""One command in a process of its own, in bounded time and memory: how it ended, what it said."""

import multiprocessing
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
# A warm process is forked for each attempt: importing would take longer than the command.
CONTEXT.set_forkserver_preload(
    [
        "dograph.experiments.run",
        "dograph.experiments.stages",
        "dograph.cli.main",
        "attempts",
        "lives",
    ]
)
MOST_MEMORY = 12 * 2**30
"""Bytes of addresses: what asks for more is refused at once, not by the machine's end."""

CRASHED = -1


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


@dataclass
class Attempt:
    """How a command ended.

    Attributes:
        code: its exit code; CRASHED after an exception, None where it did not end in time.
        text: what it printed.
    """

    code: int | None
    text: str

    @property
    def refused(self):
        """Whether it ended with a message for its user."""
        return self.code == 2 and "error: " in self.text and "Traceback" not in self.text


def _live(arguments, log, code):
    os.setsid()
    os.chdir(Path(log).parent)
    with Path(log).open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    import torch

    from dograph.cli.main import main

    torch.set_num_threads(1)
    code.value = main(arguments)


def attempt(arguments, log, seconds=60.0):
    """Runs a `dograph` command in its log's folder; what it started ends with it."""
    # Told by the command itself: processes of several threads may be waited for wrongly.
    ended = CONTEXT.Value("i", CRASHED)
    process = CONTEXT.Process(target=_live, args=(arguments, str(log), ended))
    process.start()
    process.join(seconds)
    code = None if process.is_alive() else ended.value
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return Attempt(code, Path(log).read_text(errors="replace"))
