"""Faster imports of a command's libraries."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause Python's garbage collector while a command's libraries are imported.

    They make a million objects that all stay; scanning these again and again took a fifth of the
    time. Later collections skip them, too. In a process that has imported torch, this does nothing:
    little is left to import, and garbage may be among what would be skipped.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
