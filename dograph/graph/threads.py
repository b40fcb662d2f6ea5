"""Small computations on one thread."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits this thread's linear algebra, K-means and torch operations to one core.

    A mixer's computations are too small to divide: a second thread saves little where a core is
    idle, and where none is (loaders work beside the training) each operation waits for it: 24 ms
    for a K-means of (32, 1024) that takes one thread 1.1 ms. Results then also do not depend on
    the number of threads.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # its own linear algebra follows nothing else
        with _pools().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _pools() -> ThreadpoolController:
    """The thread pools of the process's libraries; finding them takes 30 ms."""
    import sklearn.cluster  # noqa: F401  (K-means has a pool of its own, there once imported)

    return ThreadpoolController()
