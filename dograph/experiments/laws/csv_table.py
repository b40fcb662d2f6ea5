"""Mixtures and losses from CSV files: one with both, or a pair as RegMix and olmix write it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dograph.errors import UserError
from dograph.experiments.laws.table import Floats, MixtureTable, make_table
from dograph.files.checksums import file_digest

IDS = ("run", "run_id", "index")
"""Columns that name a row, the first that is there: olmix's, then RegMix's."""
OTHERS = ("name", "seed", "step")
"""Columns that are neither weights nor losses."""
WEIGHT, LOSS, STEP = "weight/", "loss/", "step"
"""Beginnings of the headings of one file with both, and the column of training steps."""
CLOSE = 0.01
"""How far a row's weights may be from sum 1, as rounded tables are."""


@dataclass(frozen=True)
class Cells:
    """A CSV file's cells as text."""

    path: Path
    heading: list[str]
    rows: list[list[str]]

    @classmethod
    def read(cls, path: Path) -> Cells:
        """Read a file; UserError if it is no table."""
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = [row for row in csv.reader(file) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error
        if len(rows) < 2:
            raise UserError(f"{path}: has no rows: give a heading and one line for each mixture")
        heading = [cell.strip() for cell in rows[0]]
        for number, row in enumerate(rows[1:], 2):
            if len(row) != len(heading):
                raise UserError(
                    f"{path}: row {number} has {len(row)} cells, the heading {len(heading)}: "
                    "fix that row"
                )
        if twice := sorted({name for name in heading if heading.count(name) > 1}):
            raise UserError(f"{path}: column {twice[0]!r} is there twice: rename one")
        return cls(path, heading, rows[1:])

    def text(self, column: str) -> list[str]:
        """A column's cells."""
        place = self.heading.index(column)
        return [row[place].strip() for row in self.rows]

    def numbers(self, columns: Sequence[str], may_miss: bool = False) -> Floats:
        """(n, columns) numbers; NaN for an empty cell if it ``may_miss``."""
        values = np.empty((len(self.rows), len(columns)))
        for place, column in enumerate(columns):
            for row, cell in enumerate(self.text(column)):
                values[row, place] = self._number(row + 2, column, cell, may_miss)
        return values

    def _number(self, row: int, column: str, cell: str, may_miss: bool) -> float:
        if may_miss and cell.lower() in ("", "nan", "none", "null"):
            return math.nan
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{self.path}: row {row}, {column} is {cell!r}: give a number")
        return value

    def id_column(self) -> str:
        """The column that names the rows."""
        for name in IDS:
            if name in self.heading:
                ids = self.text(name)
                if twice := next((each for each in ids if ids.count(each) > 1), None):
                    raise UserError(f"{self.path}: {name} {twice} is there twice: keep one row")
                return name
        raise UserError(f"{self.path}: no column names the rows: add one of {', '.join(IDS)}")

    def values(self) -> list[str]:
        """Columns that hold weights or losses."""
        skipped = {*IDS, *OTHERS, ""}
        return [n for n in self.heading if n not in skipped and not n.startswith("Unnamed")]


def read_tables(paths: Sequence[Path]) -> MixtureTable:
    """The table in one CSV file, or in two: mixtures, then losses.

    Raises:
        UserError: for what is no such table, by file, row, column and remedy.
    """
    if len(paths) > 2:
        raise UserError(f"{paths[2]}: name one table, or two: mixtures, then losses")
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file: name a CSV file, or a folder of runs")
    table = _read_one(paths[0]) if len(paths) == 1 else _read_pair(*paths)
    if table.count < 3 or len(table.domains) < 2:
        raise UserError(
            f"{paths[0]}: {table.count} mixtures of {len(table.domains)} domains: a law needs at "
            "least 3 mixtures of 2"
        )
    return table


def _read_one(path: Path) -> MixtureTable:
    cells = Cells.read(path)
    domains = [name for name in cells.heading if name.startswith(WEIGHT)]
    losses = [name for name in cells.heading if name.startswith(LOSS)]
    if not domains or not losses:
        raise UserError(
            f"{path}: has {len(domains)} columns {WEIGHT}NAME and {len(losses)} {LOSS}NAME: name "
            "them so, or give two files, mixtures and losses"
        )
    steps = cells.numbers([STEP])[:, 0] if STEP in cells.heading else np.ones(len(cells.rows))
    return make_table(
        [name.removeprefix(WEIGHT) for name in domains],
        _weights(cells, domains),
        [name.removeprefix(LOSS) for name in losses],
        cells.numbers(losses, may_miss=True),
        steps=steps,
        sources={str(path): file_digest(path)},
    )


def _read_pair(mixtures: Path, losses: Path) -> MixtureTable:
    ours, theirs = Cells.read(mixtures), Cells.read(losses)
    ids, other_ids = ours.text(ours.id_column()), theirs.text(theirs.id_column())
    domains, names = ours.values(), theirs.values()
    weights = _weights(ours, domains)
    places = {name: row for row, name in enumerate(other_ids)}
    both = [row for row, name in enumerate(ids) if name in places]
    if not both:
        raise UserError(f"{losses}: none of its rows is in {mixtures}: their ids must agree")
    alone = len(ids) + len(other_ids) - 2 * len(both)
    return make_table(
        _bare(domains, ("train_",), ()),
        weights[both],
        _bare(names, ("metric/", "valid_"), ("_val_loss", "_loss")),
        theirs.numbers(names, may_miss=True)[[places[ids[row]] for row in both]],
        sources={str(path): file_digest(path) for path in (mixtures, losses)},
        notes=[f"{alone} rows are in one of the two files only: left out"] if alone else [],
    )


def _weights(cells: Cells, columns: Sequence[str]) -> Floats:
    weights = cells.numbers(columns)
    off = (np.abs(weights.sum(axis=1) - 1) > CLOSE) | (weights < 0).any(axis=1)
    if off.any():
        row = int(off.argmax())
        raise UserError(
            f"{cells.path}: row {row + 2}: weights of sum {weights[row].sum():.4g}, the smallest "
            f"{weights[row].min():.4g}: each row is a mixture, of sum 1; name the file of mixtures "
            "first, then that of losses"
        )
    return weights


def _bare(names: Sequence[str], heads: Sequence[str], tails: Sequence[str]) -> list[str]:
    """The names without beginnings and ends that all of them have, so that losses find domains."""
    bare = list(names)
    for head in heads:
        if all(name.startswith(head) and name != head for name in bare):
            bare = [name.removeprefix(head) for name in bare]
    for tail in tails:
        if all(name.endswith(tail) and name != tail for name in bare):
            bare = [name.removesuffix(tail) for name in bare]
    return bare
