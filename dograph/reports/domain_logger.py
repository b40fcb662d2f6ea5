"""TensorBoard with a run for each domain, so that one chart has a colour and a name for each."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from dograph.files.run_dir import DOMAIN_RUNS

SECTIONS = dict.fromkeys(
    ("weights", "sampling", "realised", "effective", "tokens", "epochs"), "mixture/"
)
"""Groups of one word, by the section of TensorBoard in which their chart is."""
_count = itertools.count()


class DomainLogger(TensorBoardLogger):
    """Writes every domain's curves as a TensorBoard run of their own, ``RUN/domains/DOMAIN``.

    TensorBoard colours by run: of ``sampling/web`` and ``sampling/code`` in one run it makes two
    charts, or one of two lines in one colour. Here both are ``mixture/sampling``, of two runs. What
    is by no domain is in the run itself. ``MixtureReport`` names the domains; what is logged before
    is the run's own.
    """

    _domains: Mapping[str, DomainRun] = {}

    def begin(self, domains: Iterable[str], step: int) -> None:
        """Start a run for each domain; TensorBoard drops an interrupted run's points after step."""
        home = Path(self.log_dir) / DOMAIN_RUNS
        self._domains = {name: DomainRun(home / name, step) for name in domains}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write ``group/domain`` into the domain's run, and all else into the run itself."""
        own, by_domain = dict[str, float](), dict[str, dict[str, float]]()
        for key, value in metrics.items():
            group, name = self._split(key)
            if group in SECTIONS or "/" in group:
                by_domain.setdefault(name, {})[SECTIONS.get(group, "") + group] = float(value)
            else:
                own[key] = value
        for name, values in by_domain.items():
            self._domains[name].write(values, step or 0)
        if own:
            super().log_metrics(own, step)

    def _split(self, key: str) -> tuple[str, str]:
        """A tag's group and domain, whose name may have slashes; two empty texts without one."""
        places = (place for place, letter in enumerate(key) if letter == "/")
        pairs = ((key[:place], key[place + 1 :]) for place in places)
        return next((pair for pair in pairs if pair[1] in self._domains), ("", ""))


class DomainRun:
    """One domain's event file. Each point is appended at once: no open file, no thread, no loss.

    Args:
        folder: TensorBoard's name for the run is its path.
        step: optimiser steps done.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        self._path = folder / f"events.out.tfevents.{stamp}"
        now = time.time()
        first = Event(wall_time=now, file_version="brain.Event:2")
        restart = Event(
            wall_time=now, step=step + 1, session_log=SessionLog(status=SessionLog.START)
        )
        self._append(first, restart)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Append a point of several curves."""
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))

    def _append(self, *events: Event) -> None:
        with self._path.open("ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())
