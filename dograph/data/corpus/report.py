"""Progress bars while `prepare` works, its closing table and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from rich.table import Table

from dograph.data.corpus.left_out import FilesLeftOut, described
from dograph.data.corpus.manifest import DomainEntry
from dograph.data.corpus.round_trip import LOSSLESS, RoundTrip
from dograph.data.corpus.split import is_near
from dograph.data.corpus.store import Store
from dograph.terminal.progress import ProgressLines, print_line
from dograph.terminal.screen import is_live
from dograph.terminal.tables import screen_table

MOST_NAMED = 5
"""Domains that a warning names."""


class ProgressBars:
    """Progress in bytes of text, a bar or lines for each step; silent unless ``visible``."""

    def __init__(self, console: Console, visible: bool) -> None:
        self.console = console
        self._visible = visible
        self.progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeElapsedColumn(),
            console=console,
            disable=not (visible and is_live(console)),
        )

    def note(self, text: str) -> None:
        """Print a line."""
        if self._visible:
            print_line(self.console, text)

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show one step; yields a function to call with bytes done."""
        if self._visible and self.progress.disable:
            yield ProgressLines(self.console, name, total, megabytes).advance
            return
        task = self.progress.add_task(name, total=total)
        yield lambda done: self.progress.advance(task, done)
        finished = self.progress.tasks[task].completed
        self.progress.update(task, total=finished or 1, completed=finished or 1)


def megabytes(count: float) -> str:
    """Bytes in 10⁶: "12.3 MB"."""
    return f"{count / 1e6:,.1f} MB"


def closing_table(store: Store) -> Table:
    """Documents, tokens, their share, validation tokens, bytes held out, what is left out."""
    total = sum(entry.train_tokens for entry in store.domains)
    has_derived = any(entry.derived for entry in store.domains)
    headings = ["documents", "tokens", "share", "validation tokens", "held out", "left out"]
    headings += ["made from"] if has_derived else []
    fingerprint = f"fingerprint {store.fingerprint}"
    table = screen_table(str(store.path), "domain", *headings, caption=fingerprint)
    for entry in store.domains:
        made_from = "" if entry.derived is None else str(entry.derived)
        table.add_row(entry.name, *_row(total, entry), *([made_from] if has_derived else []))
    table.add_section()
    table.add_row("all", *_row(total, *store.domains))
    return table


def _row(total: int, *entries: DomainEntry) -> list[str]:
    documents = sum(entry.documents for entry in entries)
    tokens = sum(entry.train_tokens for entry in entries)
    validation_tokens = sum(entry.validation_tokens for entry in entries)
    held_out = sum(entry.validation_bytes or 0 for entry in entries)
    text = held_out + sum(entry.bytes for entry in entries)
    share, part = tokens / max(1, total), held_out / max(1, text)
    left_out = sum(entry.left_out.count for entry in entries)
    return [
        f"{documents:,}",
        f"{tokens:,}",
        f"{share:.1%}",
        f"{validation_tokens:,}",
        f"{part:.1%}",
        f"{left_out:,}",
    ]


def left_out_lines(domains: Iterable[DomainEntry], files: Iterable[FilesLeftOut]) -> list[str]:
    """One line for each domain of which documents are left out, and one for the files."""
    lines = [
        f"left out of {entry.name}: {'; '.join(reasons)}"
        for entry in domains
        if (reasons := entry.left_out.reasons())
    ]
    if left_out := described(files):
        lines.append(f"left out of corpus.source: {left_out}")
    return lines


def share_warnings(store: Store, asked: float) -> list[str]:
    """A line for each domain of which far more or less is held out than was asked."""
    return [
        f"Warning: domain '{entry.name}': {entry.held_out:.1%} of its bytes are held out, while "
        f"corpus.validation_fraction is {asked:g}: its documents are too few, small or unequal; "
        "add text, or change the fraction"
        for entry in store.domains
        if asked > 0
        and entry.held_out is not None
        and not is_near(*_bytes_of_splits(entry), fraction=asked)
    ]


def cap_warnings(store: Store) -> list[str]:
    """A line for each domain of which far less was taken than its cap allows."""
    lines = []
    for entry in store.domains:
        (_, taken), cap = _bytes_of_splits(entry), entry.left_out.cap
        if cap is not None and taken < cap / 2:
            lines.append(
                f"Warning: domain '{entry.name}': {taken:,} of the {cap:,} bytes that "
                "corpus.megabytes allows were taken, since the document after them is larger than "
                "the rest: raise corpus.megabytes, or cut that document"
            )
    return lines


def _bytes_of_splits(entry: DomainEntry) -> tuple[int, int]:
    held_out = entry.validation_bytes or 0
    return held_out, held_out + entry.bytes


def round_trip_note(store: Store) -> str:
    """What share of the sampled text comes back when it is encoded and decoded."""
    trips = {entry.name: entry.round_trip for entry in store.domains if entry.round_trip}
    size = sum(trip.bytes for trip in trips.values())
    lossy = sorted((trip.share, name) for name, trip in trips.items() if trip.share < 1)
    if not lossy:
        return f"tokenizer: all of {size / 1e6:.1f} MB of sampled text comes back"
    named = ", ".join(f"{name} {kept_share(trips[name])}" for _, name in lossy[:MOST_NAMED])
    more = f" and {len(lossy) - MOST_NAMED} more domains" if len(lossy) > MOST_NAMED else ""
    then = "" if lossy[0][0] >= LOSSLESS else ": `dograph evaluate` leaves bits per byte out"
    return (
        f"Warning: the tokenizer loses text; of {size / 1e6:.1f} MB that were sampled, encoded and "
        f"decoded, this share came back: {named}{more}{then}"
    )


def kept_share(trip: RoundTrip) -> str:
    """The share that comes back and the unknown tokens; never 100 % if anything is lost."""
    share = min(trip.share, 0.9999) if trip.share < 1 else 1.0
    unknown = f" ({trip.unknown:,} of {trip.tokens:,} tokens are unknown)" if trip.unknown else ""
    return f"{share:.2%}{unknown}"
