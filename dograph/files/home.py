"""Paths that begin with ``~``, also where the user has no home directory, as in some containers."""

from __future__ import annotations

import os
from pathlib import Path

from dograph.errors import UserError


def expand_home(path: str | Path, key: str) -> Path:
    """A path with ``~`` or ``~name`` replaced by that user's home directory.

    Args:
        path: as the user wrote it.
        key: recipe key or environment variable that gave it, for the error.

    Raises:
        UserError: if there is no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise UserError(
            f"{key} is {path}: {user} is no user's home directory here: write the whole path"
            + ("" if user != "~" else ", or set HOME")
        ) from error


def cache() -> Path:
    """Folder of prepared corpora without a place of their own: DOGRAPH_CACHE, or ~/.cache/dograph.

    Raises:
        UserError: if the user has no home directory.
    """
    if given := os.environ.get("DOGRAPH_CACHE"):
        return expand_home(given, "DOGRAPH_CACHE").absolute()
    try:
        return (Path.home() / ".cache" / "dograph").absolute()
    except RuntimeError as error:
        raise UserError(
            "corpus.store is not set, and you have no home directory to keep prepared corpora in: "
            "set corpus.store, or the environment variable DOGRAPH_CACHE, to a folder"
        ) from error


def home_in(folder: Path) -> dict[str, str]:
    """HOME for a process that cannot do without: ``folder``; nothing if the user has a home."""
    try:
        Path.home()
    except RuntimeError:
        return {"HOME": str(folder)}
    return {}
