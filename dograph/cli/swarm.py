r"""Train many fixed mixtures under one recipe, for `dograph fit` to fit a law to.

Mixtures by RegMix's rule around the domains' token shares, a corner for each domain, and repeats
of the even mixture, whose spread is the noise. All is a sweep in RUNS/NAME_swarm; stopped
(Ctrl-C), run it again: finished runs are kept, interrupted ones resume. More --mixtures later add
to them. The recipe's mixer does not matter.

Examples:
  dograph swarm recipes/uniform_gpt2.yaml --mixtures 64 --processes 2 --threads 1
  dograph fit runs/uniform_gpt2_swarm --law regmix
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dograph.cli import EXIT_FAILED


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `swarm`."""
    add = parser.add_argument
    add("recipe", type=Path, help="a YAML file; its mixer is replaced by fixed mixtures")
    add("overrides", nargs="*", metavar="key=value", help="the last word on a key")
    add("--mixtures", type=int, metavar="N", help="by the rule (32, or six a domain if more)")
    add("--design", default="regmix", metavar="RULE", help="regmix, or oracle (regmix)")
    share = "weight of each corner's domain (0.85); with --mixtures 0 corners are all there is"
    add("--corners", type=float, default=0.85, metavar="SHARE", help=share)
    add("--no-corners", action="store_true", help="only the rule's mixtures, as RegMix has them")
    add("--repeats", type=int, default=3, metavar="K", help="runs of the even mixture (3)")
    add("--curves", action="store_true", help="validate as often as the recipe does, for bimix")
    add("--processes", "--jobs", type=int, default=1, metavar="N", help="runs at once")
    add("--threads", type=int, metavar="N", help="of each run; else the cores are shared out")


def execute(arguments: Namespace) -> int:
    """Run what is missing; 1 if a run failed."""
    from dograph.experiments.recipe.compose import RecipeFile
    from dograph.experiments.recipe.swarm_section import SwarmSettings
    from dograph.experiments.swarm import Swarm
    from dograph.terminal.progress import print_line
    from dograph.terminal.screen import Screen

    console = Screen()
    names = ("mixtures", "design", "repeats", "curves", "processes", "threads")
    options = {name: getattr(arguments, name) for name in names}
    settings = SwarmSettings(corners=0 if arguments.no_corners else arguments.corners, **options)
    swarm = Swarm.of(RecipeFile(arguments.recipe, arguments.overrides), settings, console)
    finished = swarm.run()
    for failure in swarm.failures:
        print_line(console, f"── {failure.job.name}: {failure.reason}, {failure.log}")
        print_line(console, failure.last_lines())
    total = len(finished) + len(swarm.failures)
    print_line(console, f"{len(finished)} of {total} runs are finished")
    print_line(console, f"Fit a law:  dograph fit {swarm.folder} --law regmix")
    return EXIT_FAILED if swarm.failures else 0
