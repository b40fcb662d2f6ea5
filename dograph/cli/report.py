"""Write a run's page, RUN/report.html: what was drawn and why, what it gave, what it cost.

Each run writes it at its end; this command also does while the run trains. It needs no other file
and no script. Of an experiment with stages, each stage has its page.

Examples:
  dograph report runs/dograph_gpt2/seed_0
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `report`."""
    parser.add_argument("run", type=Path, help="folder of a run or experiment")


def execute(arguments: Namespace) -> int:
    """Write the page of every run in the folder, and print where."""
    from dograph.experiments.run_page.page import runs_in, write_page

    for folder in runs_in(arguments.run):
        print(f"Wrote {write_page(folder)}")
    return 0
