"""`prepare`: turn a corpus into tokens on disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_prepare(commands: Any) -> None:
    """The parser of `prepare`."""
    preparing = commands.add_parser(
        "prepare",
        help="turn a corpus into tokens on disk",
        description="Prepares the corpus of a recipe or of a file in configs/data.",
    )
    preparing.add_argument("recipe", type=Path, help="a YAML file with a section `corpus`")
    preparing.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. corpus.store=DIR"
    )


def command_prepare(arguments: argparse.Namespace) -> int:
    """`prepare`: write tokens to disk, and print where."""
    from dograph.data.corpus.prepare import prepare
    from dograph.data.corpus.settings import CorpusSettings
    from dograph.experiments.recipe.compose import compose
    from dograph.experiments.recipe.section import check_section

    composition = compose(arguments.recipe, arguments.overrides)
    given = composition.values.get("corpus") or {}
    section = check_section(composition, "corpus", CorpusSettings, given, set())
    store = prepare(CorpusSettings(**section.as_dict()))
    print(f"Prepared: {store.path}")
    return 0
