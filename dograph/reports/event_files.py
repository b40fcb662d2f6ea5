"""The order of a run's event files, which readers sort by name."""

from __future__ import annotations

import re
import time
from pathlib import Path

from dograph.files.run_dir import EVENT_FILES

STAMPED = re.compile(r"(events\.out\.tfevents\.)(\d+)(\..*)")
"""Name of an event file, with the second in which it was started."""


def settle_event_files(folder: Path) -> None:
    """Renames a run's event files where the next one would not come after them.

    After a clock was set back, or within the same second, the next file would come before the
    earlier ones, and readers would drop its points instead of theirs. The earlier files get the
    stamps 0, 1, 2 …; if this is interrupted, they are still in order.

    Args:
        folder: directory of a run that is resumed.
    """
    stamped = sorted(
        (path, match) for path in folder.glob(EVENT_FILES) if (match := STAMPED.match(path.name))
    )
    if not stamped or int(stamped[-1][1][2]) < int(time.time()):
        return
    for number, (path, match) in enumerate(stamped):
        path.rename(path.with_name(f"{match[1]}{number:010d}{match[3]}"))
