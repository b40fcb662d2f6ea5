"""Print the tables of ``docs/scale.md``; ``--write`` puts them and the figure into the page."""

from __future__ import annotations

import argparse

from benchmarks.scale.figure import draw
from benchmarks.scale.tables import PAGE, TABLES, page_with_tables

parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
parser.add_argument("--write", action="store_true", help="write docs/scale.md and its figure")
if parser.parse_args().write:
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw(PAGE.parent / "figures" / "scale.png")
else:
    for table in TABLES.values():
        print(f"{table.__doc__}\n\n{table()}\n")
