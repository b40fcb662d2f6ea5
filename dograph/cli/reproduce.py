"""`reproduce`: a finished run once more."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from dograph.cli.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from dograph.cli.mixers import add_mixers


def add_reproduce(commands: Any) -> None:
    """The parser of `reproduce`."""
    reproducing = commands.add_parser(
        "reproduce",
        help="run a finished run again, and say whether its losses are the same to the bit",
        description="Runs a finished run again by its resolved recipe, into RUN/reproduced, and "
        "says whether every loss and weight is the same to the bit; of an experiment, stage by "
        "stage. Exit code 1 where they are not.",
    )
    reproducing.add_argument("run", type=Path, help="folder of a finished run, or of its stages")
    add_mixers(reproducing)


def command_reproduce(arguments: argparse.Namespace) -> int:
    """`reproduce`: the verdict; 1 where losses differ."""
    from rich.console import Console

    from dograph.experiments.reproduction import reproduce, runs_of
    from dograph.experiments.run_folder import is_first_rank
    from dograph.training.checkpointing import Interrupted

    console, agrees = Console(quiet=not is_first_rank()), True
    for folder in runs_of(arguments.run):
        try:
            result = reproduce(folder)
        except Interrupted:
            console.print(f"{folder}: interrupted, so that nothing is known", markup=False)
            return EXIT_INTERRUPTED
        agrees = agrees and result.agrees
        if result.agrees:
            verdict = "the same to the bit: every validation loss, weight and share"
        else:
            more = len(result.differing) - 5
            names = ", ".join(result.differing[:5]) + (f" and {more} more" if more > 0 else "")
            far = f"losses differ by up to {result.largest:.3g} nats"
            if math.isinf(result.largest):
                far = "there are not as many validations"
            verdict = f"NOT the same: {far} ({names})"
        lines = [f"{result.folder}: {verdict}", f"  again in {result.again}"]
        lines += [f"  {change}" for change in result.changed]
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return 0 if agrees else EXIT_FAILED
