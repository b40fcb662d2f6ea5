"""`sweep`: recipes over seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dograph.cli.exit_codes import EXIT_FAILED
from dograph.cli.mixers import add_mixers
from dograph.errors import UserError

SWEEP_HELP = """\
Runs every recipe with every seed, each in a process of its own, and skips what is finished.
Stopped (Ctrl-C) or failed, run it again: interrupted runs resume from their checkpoints.

examples:
  dograph sweep recipes/uniform_gpt2.yaml recipes/dograph_gpt2.yaml --seeds 0,1,2,3,4
  dograph sweep recipes/*_gpt2.yaml --seeds 0,1,2 --processes 2 compose.trainer=cpu_study \\
      runs=runs/study
"""


def add_sweep(commands: Any) -> None:
    """The parser of `sweep`."""
    sweeping = commands.add_parser(
        "sweep",
        help="run recipes over seeds",
        description=SWEEP_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweeping.add_argument(
        "recipes", nargs="+", metavar="RECIPE|key=value", help="recipes, and overrides for all"
    )
    sweeping.add_argument(
        "--seeds", type=numbers, default=[0, 1, 2, 3, 4], metavar="S,S…", help="0,1,2,3,4"
    )
    sweeping.set_defaults(overrides=[])
    sweeping.add_argument("--processes", type=int, default=1, metavar="N", help="runs at once")
    sweeping.add_argument(
        "--threads", type=int, metavar="N", help="of each run; else the cores are shared out"
    )
    add_mixers(sweeping)


def numbers(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(word) for word in text.split(",")]


def command_sweep(arguments: argparse.Namespace) -> int:
    """`sweep`: what is missing; 1 if a run failed."""
    from rich.console import Console
    from rich.text import Text

    from dograph.experiments.sweep import Sweep

    recipes = [Path(word) for word in arguments.recipes if "=" not in word]
    overrides = [word for word in arguments.recipes if "=" in word] + arguments.overrides
    if not recipes:
        raise UserError("sweep: name a recipe, e.g. recipes/uniform_gpt2.yaml")
    sweep = Sweep(
        recipes,
        arguments.seeds,
        overrides,
        arguments.processes,
        arguments.threads,
        arguments.mixers,
    )
    finished = sweep.run()
    console = Console()
    for failure in sweep.failures:
        console.rule(Text(f"{failure.job.name}: {failure.reason}, {failure.log}"), align="left")
        console.print(failure.last_lines(), markup=False, highlight=False)
    total = len(finished) + len(sweep.failures)
    console.print(f"{len(finished)} of {total} runs are finished", highlight=False)
    return EXIT_FAILED if sweep.failures else 0
