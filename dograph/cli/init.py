"""Write a study to start from: a recipe, a mixer of your own, and a README.

They run as they are. Nothing is overwritten.

Examples:
  dograph init my_study
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from dograph.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `init`."""
    parser.add_argument("folder", type=Path, help="made if it is not there, e.g. my_study")


def execute(arguments: Namespace) -> int:
    """Copy the files of ``dograph.experiments.starter``, and print what to do next."""
    import shlex
    from importlib.resources import files

    folder: Path = arguments.folder
    starter = files("dograph.experiments.starter")
    names = sorted(each.name for each in starter.iterdir() if not each.name.startswith("__"))
    for name in names:
        if (folder / name).exists():
            raise UserError(f"{folder / name} exists, nothing was written: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with (folder / name).open("xb") as file:
            file.write((starter / name).read_bytes())
    print(f"Wrote {', '.join(str(folder / name) for name in names)}")
    run = "lightning run my_recipe.yaml --mixers my_mixers.py"
    print(f"Next:  cd {shlex.quote(str(folder))} && {run}")
    return 0
