"""A comparison's files: an HTML page, and its numbers as Markdown, CSV and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dograph.errors import UserError
from dograph.experiments.comparison.comparison import Comparison
from dograph.experiments.comparison.page import as_page
from dograph.experiments.comparison.tables import as_csv, as_json, as_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

FILES = ("report.html", "comparison.md", "comparison.csv", "comparison.json")


def check_writable(folder: Path, force: bool) -> None:
    """Raises UserError if a comparison is already in a folder, unless it may be replaced."""
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise UserError(f"{folder / there[0]} exists: name another folder, or add --force")


def write_files(comparison: Comparison, figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Writes ``report.html``, and ``comparison`` as Markdown, CSV and JSON.

    Args:
        comparison: the comparison to write.
        figures: figures of the page, by name.
        folder: made if it is not there.

    Returns:
        the files.

    Raises:
        UserError: if the folder cannot be written.
    """
    texts = (
        as_page(comparison, figures),
        as_markdown(comparison),
        as_csv(comparison),
        as_json(comparison),
    )
    paths = [folder / name for name in FILES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    return paths
