"""The documents already taken, on disk, so that memory does not grow with the corpus."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class SeenDocuments:
    """A set of document hashes that outlives an interruption, one transaction per domain.

    Hashes of a domain become permanent with `commit`; `begin` forgets what an interrupted run
    left of the domain, or else a resumed run would take its own documents for duplicates.
    """

    def __init__(self, path: Path) -> None:
        # Transactions are opened and closed by hand.
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA cache_size = -32768")  # 32 MiB of pages
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS seen (hash BLOB PRIMARY KEY, domain TEXT) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Close the file; what was not committed is forgotten."""
        self._connection.close()

    def begin(self, domain: str) -> None:
        """Start a domain afresh."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN")
        self._connection.execute("DELETE FROM seen WHERE domain = ?", (domain,))

    def add(self, digest: bytes, domain: str) -> bool:
        """Remember the document; False if some domain already has it."""
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, domain)
        )
        return cursor.rowcount == 1

    def commit(self) -> None:
        """Make the domain's hashes permanent."""
        self._connection.execute("COMMIT")
