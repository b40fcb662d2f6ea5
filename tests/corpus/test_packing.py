"""The packing process: what it does beside what, and how it ends when one of its own is killed."""

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from small_corpora import sentences

from dograph.corpus.packer import Packer, PackingFailedError
from dograph.corpus.packing import Packing, lanes_of
from dograph.corpus.staging import Staging
from dograph.corpus.tokenizer import train


def packing(domain, split="train", parts=1, folder="there"):
    return Packing(str(folder), domain, split, parts, 10, "hashes", "uint16", 0, workers=2)


def test_splits_of_one_part_are_packed_beside_the_others():
    large = [packing("a", parts=3), packing("b", parts=2)]
    small = [packing("a", "validation"), packing("c"), packing("b", "validation")]
    assert lanes_of([large[0], small[0], large[1], *small[1:]]) == [large, small]
    assert lanes_of(large) == [large]
    assert lanes_of(small) == [small]
    assert lanes_of([]) == []


def descendants(root):
    """Processes below one, by their depth."""
    found = []
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [(1, int(child)), *((depth + 1, pid) for depth, pid in descendants(child))]
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("depth", [1, 2], ids=["lane", "worker"])
def test_a_killed_process_ends_them_all(tmp_path, depth):
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
                # The last child of that depth is one that tokenises, or the lane itself.
                pids = [pid for d, pid in descendants(packer._process.pid) if d == depth]
                os.kill(pids[-1], signal.SIGKILL)

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
            packer.run([work], advance)
        assert time.monotonic() - began < 60
        assert started.is_set()
