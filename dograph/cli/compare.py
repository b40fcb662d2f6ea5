"""`compare`: which mixture is better, by how much, how sure."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from dograph.errors import UserError

COMPARE_HELP = """\
Compares the finished runs in and below RUNS: mean and 95 % interval over seeds, differences to a
baseline paired by seed, and what everything cost. Refuses runs that differ in more than mixture
and seed (tokens, corpus, tokenizer, validation set, model, training).

examples:
  dograph compare runs/study --output runs/study/comparison --tensorboard
  dograph compare runs/uniform_gpt2 runs/dograph_gpt2 --baseline uniform --format markdown
  dograph compare runs/short runs/long --allow tokens --baseline short/uniform_gpt2
"""


def add_compare(commands: Any) -> None:
    """The parser of `compare`."""
    comparing = commands.add_parser(
        "compare",
        help="tell which mixture is better, by how much and how surely",
        description=COMPARE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    comparing.add_argument(
        "runs", nargs="+", type=Path, help="folders of runs, of a recipe's runs, or of all runs"
    )
    comparing.add_argument(
        "--baseline", metavar="METHOD", help="a recipe's name; else the one of stratified sampling"
    )
    comparing.add_argument(
        "--allow",
        type=lambda text: text.split(","),
        default=[],
        metavar="WHAT,…",
        help="may differ: tokens, corpus, tokenizer, validation, model, training",
    )
    comparing.add_argument(
        "--format", choices=("markdown", "csv", "json"), help="print this instead of the table"
    )
    comparing.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for report.html and all formats"
    )
    comparing.add_argument(
        "--tensorboard", action="store_true", help="write FOLDER/tensorboard, too"
    )
    comparing.add_argument("--force", action="store_true", help="replace what is in FOLDER")


def command_compare(arguments: argparse.Namespace) -> int:
    """`compare`: a table, and a folder of files."""
    from rich.console import Console

    from dograph.experiments.comparison import tables
    from dograph.experiments.comparison.comparison import compare
    from dograph.experiments.comparison.files import check_writable, write_files

    folder: Path | None = arguments.output
    if arguments.tensorboard and folder is None:
        raise UserError("--tensorboard writes into a folder: name it with --output FOLDER")
    if folder is not None:
        check_writable(folder, arguments.force)
    comparison = compare(arguments.runs, arguments.baseline, arguments.allow)
    console = Console()
    if arguments.format:
        formats = {"markdown": tables.as_markdown, "csv": tables.as_csv, "json": tables.as_json}
        print(formats[arguments.format](comparison), end="")
    else:
        console.print(tables.as_table(comparison))
        for note in comparison.notes:
            console.print(note, markup=False, highlight=False)
    if folder is not None:
        from dograph.experiments.comparison.figures import comparison_figures

        figures = comparison_figures(comparison)
        files = write_files(comparison, figures, folder)
        print("Wrote " + ", ".join(map(str, files)), file=sys.stderr)
        if arguments.tensorboard:
            from dograph.experiments.comparison.tensorboard import write_board

            write_board(comparison, figures, folder / "tensorboard")
            board = shlex.quote(str(folder / "tensorboard"))
            print(
                f"Open TensorBoard:  tensorboard --logdir {board}\n"
                "(its curves are smoothed until Smoothing is set to 0)",
                file=sys.stderr,
            )
    return 0
