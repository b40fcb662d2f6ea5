"""What a store does not hold of its source: files and documents, counted by the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dograph.data.corpus.rows import BadRow
from dograph.files.records import Count

MOST_NAMED = 3
"""Files that are named of those left out for one reason."""

UNKNOWN_ENDING = "unknown ending"
HIDDEN = "name begins with . or _"
LINKED_FOLDER = "link to a folder, within a domain"
EMPTY_FILE = "empty file"
EMPTY_FOLDER = "empty folder"
DESCRIBED_ONLY = "one JSON value without text"


@dataclass(frozen=True)
class FilesLeftOut:
    """Files and folders of the source that were not read, for one reason."""

    reason: str
    count: Count
    first: tuple[str, ...]
    """Paths within the source; the first few in the order of their names."""

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.reason}: {self.count:,} ({', '.join(self.first)}{more})"


class FileTally:
    """Counts files that are left out; names are relative to ``source``."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._by_reason: dict[str, FilesLeftOut] = {}

    def add(self, reason: str, path: Path) -> None:
        """Count a file or a folder."""
        name = _printable(path.relative_to(self._source).as_posix())
        self._add(FilesLeftOut(reason, 1, (name,)))

    def extend(self, other: FileTally) -> None:
        """Count what another tally of the same source has counted."""
        for more in other.files():
            self._add(more)

    def files(self) -> tuple[FilesLeftOut, ...]:
        """What was counted, by reason."""
        return tuple(self._by_reason[reason] for reason in sorted(self._by_reason))

    def _add(self, more: FilesLeftOut) -> None:
        before = self._by_reason.get(more.reason, FilesLeftOut(more.reason, 0, ()))
        first = (*before.first, *more.first)[:MOST_NAMED]
        self._by_reason[more.reason] = FilesLeftOut(more.reason, before.count + more.count, first)


@dataclass(frozen=True)
class DocumentsLeftOut:
    """Documents of one domain that are in neither of its splits, by reason."""

    duplicates: Count = 0
    """Equal to an earlier one of the same domain."""
    in_other_domains: dict[str, Count] = field(default_factory=dict, hash=False)
    """Equal to one of another domain, which comes first by its name."""
    empty: Count = 0
    """Without text, or with blanks alone."""
    bad_rows: Count = 0
    """Rows, and JSON files as a whole, that hold no text under ``corpus.text_key``."""
    first_bad_row: str = ""
    cap: Count | None = None
    """Bytes at which the text was cut off; None: all of it was read."""

    @property
    def count(self) -> int:
        """All documents that were read and left out; those beyond the cap are not read."""
        elsewhere = sum(self.in_other_domains.values())
        return self.duplicates + elsewhere + self.empty + self.bad_rows

    def reasons(self) -> list[str]:
        """Each reason with its count, for messages."""
        reasons = []
        if self.duplicates:
            reasons.append(f"{_counted(self.duplicates, 'duplicate')} within it")
        for domain, count in sorted(self.in_other_domains.items()):
            reasons.append(f"{_counted(count, 'duplicate')} of documents in '{domain}'")
        if self.empty:
            reasons.append(f"{self.empty:,} empty")
        if self.bad_rows:
            bad = _counted(self.bad_rows, "row")
            reasons.append(f"{bad} without text (first: {self.first_bad_row})")
        if self.cap is not None:
            reasons.append(f"all beyond its cap of {self.cap / 1e6:g} MB (corpus.megabytes)")
        return reasons


class DocumentTally:
    """Counts the documents of ``domain`` that are left out while it is staged."""

    def __init__(self, domain: str) -> None:
        self.copies: Counter[str] = Counter()
        """Duplicates, by the domain that has the document."""
        self.cap: int | None = None
        self._domain = domain
        self._empty = self._bad_rows = 0
        self._first_bad_row = ""

    def texts(self, documents: Iterable[str | BadRow]) -> Iterator[str]:
        """The documents that have text; the others are counted."""
        for text in documents:
            if isinstance(text, BadRow):
                self._bad_rows += 1
                self._first_bad_row = self._first_bad_row or _printable(
                    f"{text.where}: {text.problem}"
                )
            elif not text.strip():
                self._empty += 1
            else:
                yield text

    def left_out(self) -> DocumentsLeftOut:
        """What was counted."""
        others = {name: count for name, count in self.copies.items() if name != self._domain}
        return DocumentsLeftOut(
            duplicates=self.copies[self._domain],
            in_other_domains=others,
            empty=self._empty,
            bad_rows=self._bad_rows,
            first_bad_row=self._first_bad_row,
            cap=self.cap,
        )


def described(files: Iterable[FilesLeftOut]) -> str:
    """Files that were left out, on one line."""
    return "; ".join(map(str, files))


def _printable(name: str) -> str:
    """A name of an untrusted file, which must not control a terminal."""
    return name if name.isprintable() else ascii(name)


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "s")
