"""The order of a run's event files: readers take them by their names, which a clock writes."""

from __future__ import annotations

import re
import time
from pathlib import Path

PATTERN = "events.out.tfevents.*"
"""Names of event files."""
_STAMPED = re.compile(r"(events\.out\.tfevents\.)(\d+)(\..*)")


def settle_event_files(folder: Path) -> None:
    """Renames a run's event files where the next one would not come after them.

    A clock that was set back, or a start within the same second, would put the next file before
    those that are there, and readers would take back its points instead of theirs. The earlier
    files get the stamps 0, 1, 2 …; whenever this is cut short, they are still in their order.

    Args:
        folder: of a run that goes on.
    """
    found = sorted(path for path in folder.glob(PATTERN) if _STAMPED.fullmatch(path.name))
    if not found or _stamp(found[-1]) < int(time.time()):
        return
    for number, path in enumerate(found):
        path.rename(path.with_name(_STAMPED.sub(rf"\g<1>{number:010d}\3", path.name)))


def _stamp(path: Path) -> int:
    found = _STAMPED.fullmatch(path.name)
    assert found is not None
    return int(found[2])
