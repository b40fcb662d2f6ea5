"""Tables for the screen, all in one style."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def screen_table(title: str, first: str, *numbers: str, caption: str | None = None) -> Table:
    """An empty table with a title and lines above and below its rows.

    Args:
        title: shown above the table.
        first: heading of the first column, whose cells may wrap.
        numbers: headings of the other columns, aligned to the right.
        caption: shown below the table, as it is.
    """
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=HORIZONTALS, pad_edge=False)
    if caption is not None:
        table.caption, table.caption_justify = Text(caption), "left"
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
