"""`--mixers`: the user's own code that a recipe may name."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_mixers(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command that trains by recipes; `dograph.cli.main` acts on it."""
    text = "a Python file, or a folder of them, whose classes the recipe may name"
    parser.add_argument("--mixers", type=Path, metavar="PATH", help=text)
