"""Hashes of the documents staged so far, on disk: memory does not grow with the corpus."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dograph.errors import UserError

_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""Ends a journal that names another file, which SQLite may then delete."""


def start_again(folder: Path) -> str:
    """The remedy for a damaged file of a store in the making."""
    return f"delete {folder} and prepare again"


class SeenDocuments:
    """A set of document hashes that survives interruptions, with one transaction per domain.

    Hashes of a domain become permanent with `commit`; `begin` deletes those that an interrupted run
    left, or a resumed run would take its own documents for duplicates.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        journal = path.with_name(path.name + "-journal")
        if journal.is_file() and journal.read_bytes().endswith(_SUPER_JOURNAL):
            raise UserError(f"{journal} names another file: {start_again(path.parents[1])}")
        with self._named_errors():
            # No isolation level: transactions are opened and closed explicitly.
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._connection.execute("PRAGMA cache_size = -32768")  # 32 MiB of pages
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS seen (hash BLOB PRIMARY KEY, domain TEXT) WITHOUT ROWID"
            )

    def close(self) -> None:
        """Close the file; hashes that were not committed are lost."""
        self._connection.close()

    def begin(self, domain: str) -> None:
        """Start a domain from nothing."""
        with self._named_errors():
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN")
            self._connection.execute("DELETE FROM seen WHERE domain = ?", (domain,))

    def add(self, digest: bytes, domain: str) -> str | None:
        """Add a document; if some domain already has it, return that domain instead."""
        with self._named_errors():
            cursor = self._connection.execute(
                "INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, domain)
            )
            if cursor.rowcount == 1:
                return None
            owner = "SELECT domain FROM seen WHERE hash = ?"
            row = self._connection.execute(owner, (digest,)).fetchone()
        return str(row[0]) if row else domain

    def commit(self) -> None:
        """Make the domain's hashes permanent."""
        with self._named_errors():
            self._connection.execute("COMMIT")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Name the damaged file and the remedy."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "disk is full" in str(error):
                raise
            remedy = start_again(self._path.parents[1])
            raise UserError(f"{self._path}: damaged ({error}): {remedy}") from error
