"""Tables for the screen, all in one style."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import escape
from rich.box import HORIZONTALS
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from dograph.terminal.screen import UNLIMITED

EDGES = 2
"""Columns of the screen left and right of a table."""
BETWEEN = 2
"""Those between two columns of a table: padding and the box's."""


def screen_table(title: str, first: str, *numbers: str, caption: str | None = None) -> ScreenTable:
    """An empty table: a column of names, then columns of ``numbers``, aligned right."""
    table = ScreenTable(title=Text(title), caption=caption and Text(caption))
    table.add_column(Text(first))
    for heading in numbers:
        table.add_column(Text(heading), justify="right")
    return table


class _Widths(NamedTuple):
    """A column's width: ``least`` with its heading broken at blanks, ``most`` in one line."""

    least: int
    most: int

    @classmethod
    def measure(cls, console: Console, options: ConsoleOptions, column: Column) -> _Widths:
        """Names may be broken at blanks, numbers nowhere."""
        unlimited = options.update(width=UNLIMITED)
        heading = Measurement.get(console, unlimited, column.header)
        cells = [Measurement.get(console, unlimited, cell) for cell in column.cells]
        most = max([heading.maximum, *(cell.maximum for cell in cells)])
        if column.justify == "right":
            return cls(max([heading.minimum, *(cell.maximum for cell in cells)]), most)
        return cls(max([heading.minimum, *(cell.minimum for cell in cells)]), most)


def _pieces(names: int, numbers: Sequence[int], room: int) -> Iterator[tuple[int, list[int]]]:
    """(width, places of its columns) of each piece of a table, as few as fit."""
    piece, width = list[int](), names + EDGES
    for place, number in enumerate(numbers):
        if piece and width + number + BETWEEN > room:
            yield width, piece
            piece, width = [], names + EDGES
        piece.append(place)
        width += number + BETWEEN
    yield width, piece


class ScreenTable(Table):
    """A table that keeps names and numbers whole, however narrow the screen is.

    Columns that do not fit stand below the first ones, behind the names again. Where not even one
    column fits beside the names, every number has a line.
    """

    def __init__(self, title: Text, caption: Text | str | None = None) -> None:
        super().__init__(title=title, title_justify="left", box=HORIZONTALS, pad_edge=False)
        self.caption, self.caption_justify = caption, "left"
        self.collapse_padding = True

    def add_row(self, *cells: RenderableType | None, **options: object) -> None:
        """Add a row; text in it is no markup."""
        texts = (Text(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*texts, **options)  # type: ignore[arg-type]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, one or several pieces, caption."""
        room = options.max_width
        if self.title:
            yield Text.styled(str(self.title), "table.title")
        names, *numbers = [_Widths.measure(console, options, column) for column in self.columns]
        pieces = list(_pieces(names.least, [each.least for each in numbers], room))
        if any(width > room for width, _ in pieces):
            yield from self._as_list()
        else:
            for least, piece in pieces:
                yield self._piece(piece, names, numbers, room - least)
        if self.caption:
            yield Text.styled(str(self.caption), "table.caption")

    def _piece(
        self, piece: Sequence[int], names: _Widths, numbers: Sequence[_Widths], free: int
    ) -> Table:
        """The columns of ``piece``, which share out the ``free`` width: first the names."""
        table = Table(box=self.box, pad_edge=False, collapse_padding=True)
        columns = [(self.columns[0], names)]
        columns += [(self.columns[place + 1], numbers[place]) for place in piece]
        for column, widths in columns:
            more = min(free, widths.most - widths.least)
            free -= more
            width = widths.least + more
            table.add_column(column.header, justify=column.justify, width=width, overflow="fold")
        for row, *cells in zip(self.rows, *(column.cells for column, _ in columns), strict=True):
            table.add_row(*cells, style=row.style, end_section=row.end_section)
        return table

    def _as_list(self) -> Iterator[Text]:
        """A line for each name and each of its numbers."""
        headings = [str(column.header) for column in self.columns[1:]]
        for name, *cells in zip(*(column.cells for column in self.columns), strict=True):
            yield Text(str(name), style="bold", overflow="fold")
            for heading, cell in zip(headings, cells, strict=True):
                if str(cell):
                    yield Text(f"  {heading} {cell}", overflow="fold")


def as_html(table: Table) -> str:
    """A table as a notebook shows it; text in it is no HTML."""
    headings = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    cells = zip(*(column.cells for column in table.columns), strict=True)
    rows = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in cells)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    title = f"<caption>{escape(str(table.title))}</caption>" if table.title else ""
    return f"<table>{title}<thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table>"
