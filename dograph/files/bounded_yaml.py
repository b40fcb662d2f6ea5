"""YAML files that cannot grow without bound: size, nesting and aliases are limited."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.errors import UserError

LONGEST_FILE = 10**6
"""Bytes; recipes have some thousand."""
MOST_VALUES = 10**5
"""Of a recipe, its aliases and interpolations expanded; recipes have some hundred."""


def load_bounded(path: Path) -> Any:
    """A YAML file that is no larger than a recipe can be, expanded, as OmegaConf reads it.

    Raises:
        UserError: if it is larger, or nested too deep.
        FileNotFoundError, OSError, ValueError, yaml.YAMLError: as reading it does.
    """
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        content = file.read(LONGEST_FILE + 1)
    if len(content) > LONGEST_FILE:
        raise UserError(f"{path}: larger than {LONGEST_FILE // 10**6} MB, so no recipe")
    try:
        text = io.StringIO(content.decode("utf-8"))
        return OmegaConf.load(text, max_yaml_expanded_nodes=MOST_VALUES)
    except RecursionError as error:
        raise UserError(f"{path}: nested too many levels deep") from error
