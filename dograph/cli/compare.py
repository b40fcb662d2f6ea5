"""Tell which mixture is better, by how much and how surely.

Compares the finished runs in and below RUNS: mean and 95 % interval over seeds, differences to a
baseline paired by seed, and what everything cost. Refuses runs that differ in more than mixture
and seed (tokens, corpus, tokenizer, validation set, model, training).

Examples:
  dograph compare runs/study --output runs/study/comparison --tensorboard
  dograph compare runs/uniform_gpt2 runs/dograph_gpt2 --baseline uniform --format markdown
  dograph compare runs/short runs/long --allow tokens --baseline short/uniform_gpt2
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dograph.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `compare`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders of runs, of a recipe's runs, or of all runs")
    add("--baseline", metavar="METHOD", help="a recipe's name; else the one of stratified sampling")
    allowed = "may differ: target, tokens, corpus, tokenizer, validation, model, training"
    add("--allow", type=lambda text: text.split(","), default=[], metavar="WHAT,…", help=allowed)
    formats = ("markdown", "csv", "json")
    add("--format", choices=formats, help="print this instead of the table")
    add("--output", type=Path, metavar="FOLDER", help="for report.html and all formats")
    add("--tensorboard", action="store_true", help="write FOLDER/tensorboard, too")
    add("--force", action="store_true", help="replace what is in FOLDER")


def execute(arguments: Namespace) -> int:
    """Print a table, and write a folder of files."""
    from dograph.experiments.comparison import tables
    from dograph.experiments.comparison.comparison import compare
    from dograph.experiments.comparison.page import check_writable, write_files
    from dograph.terminal.progress import print_line
    from dograph.terminal.screen import Screen

    folder: Path | None = arguments.output
    if arguments.tensorboard and folder is None:
        raise UserError("--tensorboard writes into a folder: name it with --output FOLDER")
    if folder is not None:
        check_writable(folder, arguments.force)
    comparison = compare(arguments.runs, arguments.baseline, arguments.allow)
    console = Screen()
    if arguments.format:
        formats = {"markdown": tables.as_markdown, "csv": tables.as_csv, "json": tables.as_json}
        print(formats[arguments.format](comparison), end="")
    else:
        console.print(tables.as_table(comparison))
        for note in comparison.notes:
            print_line(console, note)
    if folder is not None:
        from dograph.experiments.comparison.figures import comparison_figures

        figures = comparison_figures(comparison)
        files = write_files(comparison, figures, folder)
        print("Wrote " + ", ".join(map(str, files)), file=sys.stderr)
        if arguments.tensorboard:
            from dograph.experiments.comparison.tensorboard import write_board

            write_board(comparison, figures, folder / "tensorboard")
            print(
                f"Open TensorBoard:  tensorboard --logdir {shlex.quote(f'{folder}/tensorboard')}\n"
                "(its curves are smoothed until Smoothing is set to 0)",
                file=sys.stderr,
            )
    return 0
