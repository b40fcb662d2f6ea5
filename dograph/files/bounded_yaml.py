"""YAML files of bounded size, nesting and aliases."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.errors import UserError

LONGEST_FILE = 10**6
"""Bytes; recipes have a few thousand."""
MOST_VALUES = 10**5
"""Values of a file with its aliases expanded; recipes have a few hundred."""


def load_bounded(path: Path) -> Any:
    """Read a YAML file by OmegaConf; a `UserError` if it is larger or deeper than a recipe can be.

    Raises:
        FileNotFoundError, OSError, ValueError, yaml.YAMLError: as reading it does.
    """
    if not path.is_file():  # reading a pipe would wait
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        content = file.read(LONGEST_FILE + 1)
    if len(content) > LONGEST_FILE:
        raise UserError(f"{path}: larger than {LONGEST_FILE // 10**6} MB, so not a recipe")
    try:
        return parse_bounded(content.decode("utf-8"))
    except RecursionError as error:
        raise UserError(f"{path}: nested too many levels deep") from error


def parse_bounded(text: str) -> Any:
    """Parse YAML by OmegaConf, with a bound on what its aliases expand to.

    Raises:
        RecursionError: if it is nested too deep.
        ValueError, yaml.YAMLError: as parsing does.
    """
    return OmegaConf.load(io.StringIO(text), max_yaml_expanded_nodes=MOST_VALUES)
