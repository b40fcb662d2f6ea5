"""Small sums on one thread."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """While it lasts, this thread's linear algebra, K-means and torch operations take one core.

    What a mixer computes is too small to share out: a second thread saves little where a core is
    idle, and where none is (loaders work beside the training) each operation waits for the
    other's turn: 24 ms for a K-means of (32, 1024) that takes one thread 1.1 ms. Also, results
    do not depend then on how many threads there are.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # its own linear algebra listens to nothing else
        with _pools().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _pools() -> ThreadpoolController:
    """The thread pools of the process's libraries; to look for them takes 30 ms."""
    import sklearn.cluster  # noqa: F401  (K-means has a pool of its own, there once imported)

    return ThreadpoolController()
