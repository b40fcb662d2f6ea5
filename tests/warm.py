"""Processes that are forked from a warm one: importing torch takes longer than what they do.

Tests get `WarmProcess`, like `subprocess.Popen`; this file, run as a script, is the warm process.
"""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import wait

from dograph.data.corpus.tokenize_process import TokenizeProcess
from dograph.files.home import home_in

TOKENISING = ("litdata", "dograph.data.corpus.tokenize_worker")
COMMANDS = ("dograph.experiments.stages", "dograph.cli.main")
"""What a warm process has imported; the last module's ``main`` is what others do."""
LONGEST = 2**17
"""Bytes of a request: words and an environment."""


class WarmProcess:
    """A process as `subprocess.Popen` starts it, forked from a warm one.

    Args:
        modules: what the warm process has imported, `TOKENISING` or `COMMANDS`.
        words: the command line, without its program.
        environment: all of it.
        streams: descriptors of standard input, output and errors.
        held: descriptors that it keeps open, such as a lock's.
    """

    def __init__(self, modules, words, environment, streams, held=()):
        self.returncode = None
        request = {"words": words, "environment": environment, "cwd": os.getcwd()}  # noqa: PTH109
        self._code, code = os.pipe()
        asked, _ = _warm(modules)
        socket.send_fds(asked, [json.dumps(request).encode()], [*streams, code, *held])
        os.close(code)
        self.pid = int(asked.recv(20))
        self._ends = os.pidfd_open(self.pid)

    def poll(self):
        """The exit code, -9 if it has none, or None while it lives."""
        return self.wait(0)

    def wait(self, timeout=None):
        if self.returncode is None and wait([self._ends], timeout):
            os.set_blocking(self._code, False)
            code = b""
            with suppress(BlockingIOError):  # it was killed, and what it started lives
                code = os.read(self._code, 9)
            self.returncode = int(code or -signal.SIGKILL)
            os.close(self._ends)
            os.close(self._code)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)


class WarmTokenizeProcess(TokenizeProcess):
    """A tokenising process that need not import torch."""

    def _start(self, lock):
        read, write = os.pipe(), os.pipe()
        environment = {**os.environ, **home_in(self._log.parent)}
        with self._log.open("wb") as errors:
            streams = (read[0], write[1], errors.fileno())
            process = WarmProcess(TOKENISING, [], environment, streams, [lock])
        os.close(read[0])
        os.close(write[1])
        process.stdin, process.stdout = os.fdopen(read[1], "wb"), os.fdopen(write[0], "rb")
        return process

    def _ended(self):
        return self._process.poll() is not None


def start_command(words, log, environment=None, held=(), modules=COMMANDS):
    """Starts a `dograph` command that need not import torch; a file gets all that it prints."""
    with open(os.devnull, "rb") as nothing, log.open("ab") as file:  # noqa: PTH123
        streams = (nothing.fileno(), file.fileno(), file.fileno())
        return WarmProcess(modules, words, environment or dict(os.environ), streams, held)


def start_warm_run(words, environment, log, lock):
    """Starts a run of a sweep in the place of `dograph.experiments.sweep.start_run`."""
    return start_command(words[3:], log, environment, [lock])


@functools.cache
def _warm(modules):
    """The socket that asks the warm process for another, and that process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, __file__, str(theirs.fileno()), *modules]
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(command, env=environment, pass_fds=(theirs.fileno(),))
    theirs.close()
    return ours, process  # the socket's end ends the process


def _serve(asked, modules):
    """Forks a process for each request, until there is nobody to ask."""
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
    main = [import_module(name) for name in modules][-1].main
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        request, given, _, _ = socket.recv_fds(asked, LONGEST, 5)
        if not request:
            return
        if os.fork() == 0:
            _become(main, asked, json.loads(request), given)
        for descriptor in given:
            os.close(descriptor)


def _reap(*_):
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become(main, asked, request, given):
    """The process from its first to its last instant."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for standard, descriptor in enumerate(given[:3]):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        # New objects: those there take a pipe for the file that they were made for.
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = ["dograph", *request["words"]]
        if threads := os.environ.get("OMP_NUM_THREADS"):
            import torch

            torch.set_num_threads(int(threads))
        asked.send(str(os.getpid()).encode())
        asked.close()
        code = main() or 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(given[3], str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
