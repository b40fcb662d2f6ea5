"""Tables for the screen, all in one style."""

from __future__ import annotations

from rich.box import HORIZONTALS
from rich.table import Table
from rich.text import Text


def screen_table(title: str, first: str, *numbers: str, caption: str | None = None) -> Table:
    """An empty table: cells of the first column wrap, those of ``numbers`` are aligned right."""
    table = Table(title=title, title_justify="left", box=HORIZONTALS, pad_edge=False)
    table.caption, table.caption_justify = caption and Text(caption), "left"
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
