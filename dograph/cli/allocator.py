"""Keeps freed memory in the process, so that every training step reuses the pages of the last."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

from dograph.errors import UserError

SWITCH = "DOGRAPH_KEEP_MEMORY"
"""Environment variable; 0 leaves the allocator as it is."""
OWN_SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""glibc's environment variables of the same settings; whoever sets one has chosen."""
TUNABLES = "GLIBC_TUNABLES"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt (malloc.h)."""
NEVER_TRIM = -1


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell glibc's allocator to keep what is freed; return whether it was told.

    By default glibc maps every tensor above a threshold of its own and returns it to the system
    when it is freed, so that each step faults its pages in again. Here large blocks come from the
    heap (``M_MMAP_MAX`` 0), which never shrinks (``M_TRIM_THRESHOLD`` -1). Does nothing without
    Linux and glibc, if the environment sets glibc's own variables, or with DOGRAPH_KEEP_MEMORY=0.

    Raises:
        UserError: if DOGRAPH_KEEP_MEMORY is neither 0 nor 1.
    """
    switch = environment.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise UserError(f"environment: {SWITCH} is {switch!r}: set it to 0 or 1")
    chosen = any(name in environment for name in OWN_SETTINGS)
    chosen = chosen or "glibc.malloc" in environment.get(TUNABLES, "")
    if switch == "0" or chosen or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False  # musl, for one, has no mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_TRIM))
    return all(library.mallopt(parameter, value) == 1 for parameter, value in settings)
