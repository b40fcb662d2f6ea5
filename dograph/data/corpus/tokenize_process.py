"""Starts the process of `tokenize_worker`, sends it jobs and reads its messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from dograph.data.corpus.tokenize_worker import SplitJob, TrainJob
from dograph.errors import UserError
from dograph.files.home import home_in

_POLL_SECONDS = 0.5
_TAIL = 4_000
"""Characters of the process's log that an error quotes."""
MAIN = "from dograph.data.corpus.tokenize_worker import main; main()"
CLEAN_PATH = "import sys; sys.path[:1] == [''] and sys.path.pop(0)"
"""Python puts the working directory first; -P, which prevents that, came with 3.11."""


class TokenisingFailedError(RuntimeError):
    """The tokenising process ended before its work was done; the message quotes its last words."""


class TokenizeProcess:
    """The tokenising process, started early to import torch while documents are staged.

    Its output and litdata's go to ``log``. It holds the store's lock too, whose descriptor is
    ``lock``: if this process is killed, no other run enters the folder before that one has ended.
    """

    def __init__(self, log: Path, lock: int) -> None:
        self._log = log
        self._process = self._start(lock)

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        search = os.pathsep.join(path for path in sys.path if path)
        with self._log.open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", f"{CLEAN_PATH}; {MAIN}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": search, **home_in(self._log.parent)},
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C reaches only this process, which ends the other
            )

    def _ended(self) -> bool:
        """Whether the process has ended; its number stays its own until `close`."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def close(self) -> None:
        """Kill the process and all that it started."""
        # The group outlives its leader if litdata left workers behind. Until `wait`, its number
        # cannot be anybody else's.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # unsent bytes are no longer needed
                    pipe.close()

    def train(self, job: TrainJob) -> None:
        """Train a tokenizer and write it to a file; raises as `run` does."""
        self._request({"train": asdict(job)}, lambda _: None)

    def run(self, folder: Path, jobs: list[SplitJob], advance: Callable[[int], None]) -> None:
        """Tokenise splits into the store in the making, a folder; advance by bytes of text done.

        Raises `TokenisingFailedError` if the process ends early, or a UserError that it reports.
        """
        request = {"folder": str(folder), "jobs": [asdict(job) for job in jobs]}
        self._request(request, advance)

    def _request(self, request: dict[str, Any], advance: Callable[[int], None]) -> None:
        commands, messages = self._process.stdin, self._process.stdout
        assert commands is not None and messages is not None
        with suppress(BrokenPipeError):  # it has ended: reading finds out and says why
            commands.write(json.dumps(request).encode() + b"\n")
            commands.flush()
        for message in self._messages(messages.fileno()):
            advance(message.get("bytes", 0))
            if message.get("finished"):
                return
            if message.get("user_error"):
                raise UserError(message["user_error"])
            if "failed" in message:
                raise TokenisingFailedError(f"tokenising failed: {message['failed']}")
        text = self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
        raise TokenisingFailedError(f"the tokenising process ended\n{text}")

    def _messages(self, descriptor: int) -> Iterator[dict[str, Any]]:
        """Yield messages until the process ends; processes it left may keep the pipe open."""
        rest = b""
        while True:
            if not wait([descriptor], _POLL_SECONDS):
                if self._ended():
                    return
                continue
            data = os.read(descriptor, 2**16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)
