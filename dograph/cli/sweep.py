r"""Run recipes over seeds.

Runs every recipe with every seed, each in a process of its own, and skips what is finished.
Stopped (Ctrl-C) or failed, run it again: interrupted runs resume from their checkpoints.

Examples:
  dograph sweep recipes/uniform_gpt2.yaml recipes/dograph_gpt2.yaml --seeds 0,1,2,3,4
  dograph sweep recipes/*_gpt2.yaml --seeds 0,1,2 --processes 2 compose.trainer=cpu_study \
      runs=runs/study
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dograph.cli import EXIT_FAILED
from dograph.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `sweep`."""
    add = parser.add_argument
    add("recipes", nargs="+", metavar="RECIPE|key=value", help="recipes, and overrides for all")
    add("--seeds", type=numbers, default=[0, 1, 2, 3, 4], metavar="S,S…", help="0,1,2,3,4")
    add("--processes", type=int, default=1, metavar="N", help="runs at once")
    add("--threads", type=int, metavar="N", help="of each run; else the cores are shared out")
    parser.set_defaults(overrides=[])


def numbers(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(word) for word in text.split(",")]


def execute(arguments: Namespace) -> int:
    """Run what is missing; 1 if a run failed."""
    from dograph.experiments.sweep import Sweep
    from dograph.terminal.progress import print_line
    from dograph.terminal.screen import Screen

    recipes = [Path(word) for word in arguments.recipes if "=" not in word]
    overrides = [word for word in arguments.recipes if "=" in word] + arguments.overrides
    if not recipes:
        raise UserError("sweep: name a recipe, e.g. recipes/uniform_gpt2.yaml")
    shares = (arguments.processes, arguments.threads)
    sweep = Sweep(recipes, arguments.seeds, overrides, *shares, arguments.mixers)
    finished = sweep.run()
    console = Screen()
    for failure in sweep.failures:
        print_line(console, f"── {failure.job.name}: {failure.reason}, {failure.log}")
        print_line(console, failure.last_lines())
    total = len(finished) + len(sweep.failures)
    console.print(f"{len(finished)} of {total} runs are finished", highlight=False)
    return EXIT_FAILED if sweep.failures else 0
