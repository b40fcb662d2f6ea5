"""Turn a corpus into tokens on disk: that of a recipe, or of a file in configs/data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `prepare`."""
    parser.add_argument("recipe", type=Path, help="a YAML file with a section `corpus`")
    given = "e.g. corpus.store=DIR"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=given)


def execute(arguments: Namespace) -> int:
    """Write tokens to disk, and print where."""
    from dograph.data.corpus.prepare import prepare
    from dograph.data.corpus.settings import CorpusSettings
    from dograph.experiments.recipe.compose import compose
    from dograph.experiments.recipe.section import check_section

    composition = compose(arguments.recipe, arguments.overrides)
    given = composition.values.get("corpus") or {}
    section = check_section(composition, "corpus", CorpusSettings, given, set())
    print(f"Prepared: {prepare(CorpusSettings(**section.as_dict())).path}")
    return 0
