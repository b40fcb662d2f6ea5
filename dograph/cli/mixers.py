"""`--mixers`: code of one's own that a recipe may name."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_mixers(parser: argparse.ArgumentParser) -> None:
    """The option of commands that train by recipes; `dograph.cli.main` acts on it."""
    text = "a Python file, or a folder of them, whose classes the recipe may name"
    parser.add_argument("--mixers", type=Path, metavar="PATH", help=text)
