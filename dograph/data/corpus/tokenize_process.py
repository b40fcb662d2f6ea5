"""The process that tokenises (`tokenize_worker`): starts it, feeds it and hears its errors."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dograph.data.corpus.tokenize_worker import Packing
from dograph.errors import UserError

_POLL_SECONDS = 0.5
_TAIL = 4_000
"""Characters of the packing process's log that an error quotes."""


MAIN = "from dograph.data.corpus.tokenize_worker import main; main()"
CLEAN_PATH = "import sys; sys.path[:1] == [''] and sys.path.pop(0)"
"""Python puts the folder it happens to run in first; -P, which would not, came with 3.11."""


class PackingFailedError(RuntimeError):
    """The packing process ended before its work; the message says what it last said."""


class Packer:
    """The packing process, started at once so that it imports torch while documents are staged.

    Args:
        log: file for what the process and litdata print.
        lock: descriptor of the store's lock, which the process holds too: if we are killed, no
            other run enters the folder before it has ended as well.
    """

    def __init__(self, log: Path, lock: int) -> None:
        self._log = log
        search = os.pathsep.join(path for path in sys.path if path)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"{CLEAN_PATH}; {MAIN}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": search},
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C comes to us alone, and we end it
            )

    def __enter__(self) -> Packer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The group outlives its leader if litdata left workers behind. Until `wait`, its number
        # cannot be anybody else's.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was not sent is not needed any more
                    pipe.close()

    def run(self, folder: Path, packings: list[Packing], advance: Callable[[int], None]) -> None:
        """Have the splits packed; ``advance`` is called with bytes of text done.

        Raises:
            PackingFailedError: if the process ends early.
            UserError: if it does for a reason that the user can mend.
        """
        request = {"folder": str(folder), "packings": [asdict(item) for item in packings]}
        commands, messages = self._pipes()
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
                raise PackingFailedError(f"tokenising failed: {message['failed']}")
        text = self._log.read_text(errors="replace")[-_TAIL:].strip()
        raise PackingFailedError(f"the tokenising process ended\n{text}")

    def _messages(self, descriptor: int) -> Iterator[dict[str, Any]]:
        """Messages until the process ends; the pipe may stay open in processes it left behind."""
        rest = b""
        while True:
            if not select.select([descriptor], [], [], _POLL_SECONDS)[0]:
                if self._has_ended():
                    return
                continue
            data = os.read(descriptor, 2**16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)

    def _has_ended(self) -> bool:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the packing process has no pipes")
        return self._process.stdin, self._process.stdout
