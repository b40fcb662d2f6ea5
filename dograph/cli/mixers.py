"""List the mixers: what each does, acts on, costs and takes, its paper and recipes.

A line each in a pipe, wrapped on a screen; all of it comes from the classes and recipes themselves.
"Own limits" are a mixer's own arguments; every mixer keeps to a recipe's `limits`.

Examples:
  dograph mixers
  dograph mixers --mixers my_mixers.py
  dograph mixers --json
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dograph.experiments.mixer_list import MixerDescription
    from dograph.terminal.screen import Screen


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `mixers`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def execute(arguments: Namespace) -> int:
    """Print the package's mixers, then those of the user's files."""
    from dataclasses import asdict

    from dograph.experiments.mixer_list import describe_mixers, shipped_mixers
    from dograph.terminal.screen import Screen

    mixers = shipped_mixers()
    if arguments.mixers is not None:
        from dograph.experiments.recipe.classes import mixers_in

        mixers += mixers_in(arguments.mixers)
    described = describe_mixers(mixers)
    if arguments.json:
        print(json.dumps([asdict(each) for each in described], indent=1, ensure_ascii=False))
        return 0
    console = Screen()
    for each in described:
        print_mixer(console, each)
    return 0


def print_mixer(console: Screen, described: MixerDescription) -> None:
    """Print one mixer, in one line where lines may be as long as they like."""
    from rich.text import Text

    from dograph.terminal.screen import UNLIMITED

    details = {
        "Acts on": described.acts_on,
        "Costs": described.costs or "depend on its arguments",
        "Target": "followed" if described.target else "not followed",
        "Own limits": ", ".join(described.limits) or "none",
        "Paper": described.paper or "none",
        "Recipe": ", ".join(described.recipes) or "none of its own",
    }
    first = Text.assemble((described.name, "bold"), f": {described.summary}")
    lines = [Text(f"{label}: {text}") for label, text in details.items()]
    if console.width == UNLIMITED:
        console.print(first, Text("; ").join(lines), soft_wrap=True)
        return
    for line, indent in [(first, 0), *((line, 2) for line in lines)]:
        for number, part in enumerate(line.wrap(console, max(console.width - indent - 2, 1))):
            part.rstrip()
            console.print(Text(" " * (indent + 2 * (number > 0))) + part, soft_wrap=True)
