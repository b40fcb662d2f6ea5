"""Progress bars while `prepare` works, and its closing table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from rich.table import Table

from dograph.data.corpus.left_out import FilesLeftOut, described
from dograph.data.corpus.manifest import DomainEntry
from dograph.data.corpus.store import Store


class ProgressBars:
    """Progress bars in bytes of text, one per step; silent unless ``visible``."""

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
            disable=not visible,
        )

    def note(self, text: str) -> None:
        """Print a line."""
        if self._visible:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show one bar; yields a function to call with bytes done."""
        task = self.progress.add_task(name, total=total)
        yield lambda done: self.progress.advance(task, done)
        finished = self.progress.tasks[task].completed
        self.progress.update(task, total=finished or 1, completed=finished or 1)


def closing_table(store: Store) -> Table:
    """Documents, tokens, share of the tokens, validation tokens and what is left out, by domain."""
    total = sum(entry.train_tokens for entry in store.domains)
    table = Table(title=f"{store.path}", caption=f"fingerprint {store.fingerprint}")
    table.add_column("domain")
    for heading in ("documents", "tokens", "share", "validation tokens", "left out"):
        table.add_column(heading, justify="right")
    has_derived = any(entry.derived for entry in store.domains)
    if has_derived:
        table.add_column("made from")
    for entry in store.domains:
        made_from = "" if entry.derived is None else str(entry.derived)
        table.add_row(entry.name, *_row(total, entry), *([made_from] if has_derived else []))
    table.add_section()
    table.add_row("all", *_row(total, *store.domains))
    return table


def _row(total: int, *entries: DomainEntry) -> list[str]:
    documents = sum(entry.documents for entry in entries)
    tokens = sum(entry.train_tokens for entry in entries)
    held_out = sum(entry.validation_tokens for entry in entries)
    share = f"{tokens / max(1, total):.1%}"
    left_out = sum(entry.left_out.count for entry in entries)
    return [f"{documents:,}", f"{tokens:,}", share, f"{held_out:,}", f"{left_out:,}"]


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
