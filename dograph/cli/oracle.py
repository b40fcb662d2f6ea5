r"""Find the best fixed mixture for a recipe's target, and validate it.

Tries fixed mixtures under exactly the recipe's model, tokens, data and validation, fits a Gaussian
process to the target's loss, tries more near its optimum, and runs the optimum and the even
mixture with the same seeds: how much there is to gain by mixing. All of it is in RUNS/NAME_oracle,
its numbers in oracle.json. Stopped (Ctrl-C), run it again: finished runs are kept, interrupted
ones resume.

Examples:
  dograph oracle recipes/uniform_gpt2.yaml compose.setting=unseen --processes 2 --threads 1
  dograph oracle recipes/uniform_gpt2.yaml target=worst name=worst --mixtures 36 --rounds 3
  dograph compare runs/uniform_gpt2 runs/dograph_schedule_gpt2 runs/uniform_gpt2_oracle
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `oracle`."""
    add = parser.add_argument
    add("recipe", type=Path, help="a YAML file; its mixer is replaced by fixed mixtures")
    add("overrides", nargs="*", metavar="key=value", help="the last word on a key")
    first = "of the first round (24, or three a domain if that is more)"
    add("--mixtures", type=int, metavar="N", help=first)
    later = "of mixtures; each later one adds a quarter as many near the optimum (2)"
    add("--rounds", type=int, default=2, metavar="N", help=later)
    add("--seeds", type=int, default=5, metavar="K", help="of the validation (5)")
    add("--processes", "--jobs", type=int, default=1, metavar="N", help="runs at once")
    add("--threads", type=int, metavar="N", help="of each run; else the cores are shared out")
    add("--force", action="store_true", help="replace the oracle of another recipe")


def execute(arguments: Namespace) -> int:
    """Search, validate, and print a table and one sentence."""
    from dograph.experiments.oracle.search import Oracle
    from dograph.experiments.recipe.compose import RecipeFile
    from dograph.terminal.progress import print_line
    from dograph.terminal.screen import Screen

    console = Screen()
    names = ("mixtures", "rounds", "seeds", "processes", "threads", "force")
    options = {name: getattr(arguments, name) for name in names}
    file = RecipeFile(arguments.recipe, arguments.overrides)
    oracle = Oracle(file, console=console, **options)
    result = oracle.run()
    console.print(result.table())
    for line in (result.sentence, f"Wrote {oracle.folder / 'oracle.json'}"):
        print_line(console, line)
    return 0
