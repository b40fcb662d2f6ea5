"""How the packing process ends when one of its own is killed."""

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from small_corpora import sentences

from dograph.corpus.packer import Packer, PackingFailedError
from dograph.corpus.packing import Packing
from dograph.corpus.staging import Staging
from dograph.corpus.tokenizer import train


def workers_of(root):
    """Processes that a process has started."""
    tasks = Path(f"/proc/{root}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_killed_process_ends_them_all(tmp_path):
    with ExitStack() as stack:
        staging = Staging(tmp_path, 0)
        stack.callback(staging.close)
        texts = sentences(1, 800, words=2000)
        staged = staging.domain("a", lambda: iter(texts), None, "there", lambda _: None).train
        assert staged.parts > 2
        (tmp_path / "tokenizer.json").write_text(train(300, iter(texts[:50])).to_str())
        lock = os.open(tmp_path / "lock", os.O_CREAT)
        stack.callback(os.close, lock)
        packer = stack.enter_context(Packer(tmp_path / "log", lock))
        started = threading.Event()

        def advance(size):
            if size and not started.is_set():
                started.set()
                os.kill(workers_of(packer._process.pid)[-1], signal.SIGKILL)

        work = Packing(
            str(tmp_path),
            "a",
            "train",
            staged.parts,
            staged.documents,
            staged.hashes,
            "uint16",
            0,
            workers=2,
        )
        began = time.monotonic()
        with pytest.raises(PackingFailedError, match="ended with code -9"):
            packer.run(tmp_path, [work], advance)
        assert time.monotonic() - began < 60
        assert started.is_set()
