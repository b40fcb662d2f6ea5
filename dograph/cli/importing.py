"""What a command does while it imports its libraries."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Holds back Python's search for cycles while a command's libraries are imported.

    They make a million objects that all stay, and to look through these again and again took a
    fifth of the time. What was made is left out of every later search, too. Does nothing in a
    process that has torch already: there is little left to import, and more that must be found.
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
