r"""Say what a recipe will train on and cost, before anything runs.

For every stage: parameters, tokens and steps; what the corpus holds of each domain, how much of it
the first weights draw, and from which step it repeats; FLOPs; estimates of a device's memory and
of the checkpoints' size. Nothing is started and no model takes memory, so that a laptop plans a run
of any size. A corpus that is not prepared is not counted, and time is not guessed.

Examples:
  dograph plan recipes/dograph_gpt2.yaml
  dograph plan recipes/doremi_gpt2.yaml trainer.max_steps=1000 --measure
  dograph plan recipes/uniform_gpt2.yaml model.architecture=llama compose.trainer=gpu \
    trainer.devices=8 trainer.num_nodes=128 trainer.strategy=fsdp
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from pathlib import Path

from dograph.cli.run import uncollected


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `plan`."""
    add = parser.add_argument
    add("recipe", type=Path, help="a YAML file, e.g. recipes/dograph_gpt2.yaml")
    add("overrides", nargs="*", metavar="key=value", help="the last word on a key")
    add("--prepare", action="store_true", help="prepare the corpus, if that is not done")
    add("--measure", action="store_true", help="train ten steps here, to estimate the time")
    add("--json", action="store_true", help="print JSON instead of tables")


def execute(arguments: Namespace) -> int:
    """Forecast every stage, and print it."""
    from dograph.experiments.recipe.compose import RecipeFile

    file = RecipeFile(arguments.recipe, arguments.overrides)
    with uncollected():
        import_module("dograph.experiments.forecast.recipe_forecast")
    from dograph.experiments.forecast.recipe_forecast import Forecaster
    from dograph.experiments.forecast.table import print_forecast, total_cost
    from dograph.terminal.screen import Screen

    forecaster = Forecaster(file, prepares=arguments.prepare, measures=arguments.measure)
    # What is printed meanwhile, e.g. a new corpus's table, is not JSON.
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        stages = list(forecaster.stages())
    if arguments.json:
        content = {"stages": [stage.as_json() for stage in stages], "total": total_cost(stages)}
        print(json.dumps(content, indent=2))
    else:
        print_forecast(stages, Screen())
    return 0
