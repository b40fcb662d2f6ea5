"""`run`: train what a recipe describes."""

from __future__ import annotations

import argparse
import shlex
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dograph.cli.exit_codes import EXIT_INTERRUPTED
from dograph.cli.importing import uncollected
from dograph.cli.mixers import add_mixers
from dograph.errors import UserError

if TYPE_CHECKING:
    from dograph.experiments.recipe.compose import RecipeFile

RUN_HELP = """\
Trains what RECIPE describes and reports it in TensorBoard.

examples:
  lightning run recipes/dograph_gpt2.yaml
  lightning run recipes/dograph_gpt2.yaml trainer.max_steps=20 mixer.init_args.clusters=4
  lightning run recipes/dograph_gpt2.yaml --resume runs/dograph_gpt2/seed_0
  lightning run my_recipe.yaml --mixers my_mixers.py
  lightning run recipes/doremi_gpt2.yaml stages.proxy.trainer.max_steps=100 --stage proxy

A run that was stopped or killed resumes from its newest checkpoint when the same command is given
again; --resume resumes a run whatever has changed since. A recipe with stages runs what is
missing: finished stages are used again while their inputs stay the same.
"""


def add_run(commands: Any) -> None:
    """The parser of `run`."""
    running = commands.add_parser(
        "run",
        help="train what a recipe describes",
        description=RUN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument("recipe", type=Path, help="a YAML file, e.g. recipes/dograph_gpt2.yaml")
    running.add_argument("overrides", nargs="*", metavar="key=value", help="the last word on a key")
    running.add_argument("--resume", type=Path, metavar="RUN", help="folder of a run to resume")
    running.add_argument("--stage", metavar="NAME", help="run only this stage of the recipe")
    running.add_argument("--check", action="store_true", help="check the recipe and stop")
    add_mixers(running)


def command_run(arguments: argparse.Namespace) -> int:
    """`run`: check, train, print the end of the run."""
    from dograph.experiments.recipe.compose import RecipeFile

    file = RecipeFile(arguments.recipe, arguments.overrides)
    with uncollected():
        import_module("dograph.experiments.stages")
        from dograph.training.checkpoint_writer import Interrupted
    try:
        return (run_stages if file.stages else run_once)(file, arguments)
    except Interrupted as interruption:
        words = [str(arguments.recipe), *arguments.overrides]
        for option in ("stage", "mixers", "resume"):
            value = getattr(arguments, option)
            words += [f"--{option}", str(value)] if value else []
        print(
            f"\nInterrupted; nothing lost. Checkpoint: {interruption.checkpoint}\n"
            f"Resume with: lightning run {shlex.join(words)}"
        )
        return EXIT_INTERRUPTED


def run_once(file: RecipeFile, arguments: argparse.Namespace) -> int:
    """`run` of a recipe of one run."""
    from dograph.experiments.recipe.check import check
    from dograph.experiments.run import run

    if arguments.stage:
        raise UserError(f"{file.path} has no stages: leave --stage out")
    recipe = check(file.compose())
    if arguments.check:
        print(recipe.as_yaml(), end="")
    else:
        run(recipe, arguments.resume)
    return 0


def run_stages(file: RecipeFile, arguments: argparse.Namespace) -> int:
    """`run` of a recipe with stages."""
    from dograph.experiments.plan import Plan
    from dograph.experiments.stages import Experiment

    if arguments.resume:
        raise UserError(
            f"{file.path} has stages, which resume by themselves: run it again, without --resume"
        )
    plan = Plan.make(file)
    if arguments.check:
        print("---\n".join(recipe.as_yaml() for recipe in plan.recipes.values()), end="")
    else:
        Experiment(plan).run(only=arguments.stage)
    return 0
