"""Run a finished run again, and tell whether its losses are equal to the bit.

Runs it by its resolved recipe, into RUN/reproduced, and compares every loss and weight; an
experiment is reproduced stage by stage. Exit code 1 if they are not equal.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dograph.cli import EXIT_FAILED, EXIT_INTERRUPTED


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `reproduce`."""
    parser.add_argument("run", type=Path, help="folder of a finished run or experiment")


def execute(arguments: Namespace) -> int:
    """Print the verdict; 1 if anything differs."""
    from dograph.experiments.rank_zero import is_rank_zero
    from dograph.experiments.reproduction import reproduce, runs_of
    from dograph.terminal.screen import Screen
    from dograph.training.checkpoint_writer import Interrupted

    console, agrees = Screen(quiet=not is_rank_zero()), True
    for folder in runs_of(arguments.run):
        try:
            result = reproduce(folder)
        except Interrupted:
            console.print(f"{folder}: interrupted before it could be compared", markup=False)
            return EXIT_INTERRUPTED
        agrees = agrees and result.agrees
        lines = [f"{result.folder}: {result.verdict}", f"  again in {result.again}"]
        lines += [f"  {change}" for change in result.changed]
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return 0 if agrees else EXIT_FAILED
