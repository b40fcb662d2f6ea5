"""Train what a recipe describes, and report it in TensorBoard.

Examples:
  lightning run recipes/dograph_gpt2.yaml
  lightning run recipes/dograph_gpt2.yaml trainer.max_steps=20 mixer.init_args.clusters=4
  lightning run recipes/dograph_gpt2.yaml --resume runs/dograph_gpt2/seed_0
  lightning run recipes/dograph_gpt2.yaml corpus.source=my_text --from runs/dograph_gpt2/seed_0
  lightning run my_recipe.yaml --mixers my_mixers.py
  lightning run recipes/doremi_gpt2.yaml stages.proxy.trainer.max_steps=100 --stage proxy

A run that was stopped or killed resumes from its newest checkpoint when the same command is given
again; --resume resumes a run under a changed recipe: a changed key takes effect or is refused.
--from starts a new run from the mixture that a finished one found, on the same or another corpus:
domains that are in both keep their ratios, new ones start at their prior. A recipe with stages runs
what is missing: finished stages are used again while their inputs stay the same.
"""

from __future__ import annotations

import gc
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dograph.cli import EXIT_INTERRUPTED
from dograph.errors import UserError

if TYPE_CHECKING:
    from dograph.experiments.recipe.compose import RecipeFile


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add = parser.add_argument
    add("recipe", type=Path, help="a YAML file, e.g. recipes/dograph_gpt2.yaml")
    add("overrides", nargs="*", metavar="key=value", help="the last word on a key")
    add("--resume", type=Path, metavar="RUN", help="folder of a run to resume")
    help_from = "folder of a finished run, by whose weights the mixture starts"
    add("--from", dest="start_from", type=Path, metavar="RUN", help=help_from)
    add("--stage", metavar="NAME", help="run only this stage of the recipe")
    add("--check", action="store_true", help="check the recipe and stop")


def execute(arguments: Namespace) -> int:
    """Check, train, print the end of the run."""
    from dograph.experiments.recipe.compose import RecipeFile

    file = RecipeFile(arguments.recipe, arguments.overrides)
    with uncollected():
        import_module("dograph.experiments.stages")
        from dograph.training.checkpoint_writer import Interrupted
    try:
        (run_stages if file.stages else run_once)(file, arguments)
    except Interrupted as interruption:
        words = [str(arguments.recipe), *arguments.overrides]
        for option in ("stage", "mixers", "resume", "from"):
            value = getattr(arguments, "start_from" if option == "from" else option)
            words += [f"--{option}", str(value)] if value else []
        saved = f" Checkpoint: {interruption.checkpoint}" if interruption.checkpoint else ""
        print(
            f"\nInterrupted; nothing lost.{saved}\nResume with: lightning run {shlex.join(words)}"
        )
        return EXIT_INTERRUPTED
    return 0


def run_once(file: RecipeFile, arguments: Namespace) -> None:
    """`run` of a recipe of one run."""
    from dograph.experiments.recipe.check import check
    from dograph.experiments.recipe.domains import check_source_domains
    from dograph.experiments.run import run

    if arguments.stage:
        raise UserError(f"{file.path} has no stages: leave --stage out")
    if arguments.start_from:
        from dograph.experiments.from_run import start_from

        recipe = start_from(file.compose(), arguments.start_from)
    else:
        recipe = check(file.compose())
    if arguments.check:
        check_source_domains(recipe)
        print(recipe.as_yaml(), end="")
    else:
        run(recipe, arguments.resume)


def run_stages(file: RecipeFile, arguments: Namespace) -> None:
    """`run` of a recipe with stages."""
    from dograph.experiments.plan import Plan
    from dograph.experiments.recipe.domains import check_source_domains
    from dograph.experiments.stages import Experiment, check_swarms

    if arguments.resume:
        raise UserError(
            f"{file.path} has stages, which resume by themselves: run it again, without --resume"
        )
    if arguments.start_from:
        raise UserError(
            f"{file.path} has stages: leave --from out, and give the stage that is to start from "
            f"{arguments.start_from} its weights, stages.NAME.mixer.init_args.prior='{{…}}', from "
            f"`dograph export {arguments.start_from}`"
        )
    plan = Plan.make(file)
    if arguments.check:
        for recipe in plan.recipes.values():
            check_source_domains(recipe)
        check_swarms(plan)
        print("---\n".join(recipe.as_yaml() for recipe in plan.recipes.values()), end="")
    else:
        Experiment(plan).run(only=arguments.stage)


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause Python's garbage collector while a command's libraries are imported.

    They make a million objects that all stay; scanning these again and again took a fifth of the
    time. Later collections skip them, too. In a process that has imported torch, this does nothing:
    little is left to import, and garbage may be among what would be skipped.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
