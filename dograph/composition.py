"""A recipe's values, merged from files and the command line, each with its origin."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dograph.errors import UserError

COMMAND_LINE = "command line"


@dataclass
class Composition:
    """A recipe's values and which file each came from.

    Attributes:
        values: everything merged and resolved, without ``compose``.
        parts: (file or "command line", its own values), weakest first.
    """

    values: dict[str, Any]
    parts: list[tuple[str, DictConfig]]

    def origin(self, key: str) -> str:
        """The file, or the command line, that had the last word on a dotted key."""
        for label, part in reversed(self.parts):
            if contains(part, key):
                return label
        return self.parts[-2][0]  # the recipe itself: it could have set the key


def contains(config: DictConfig, key: str) -> bool:
    """Whether a dotted key is set in a configuration."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def nearest(word: str, words: Sequence[str]) -> str:
    """A hint at the nearest spelling, or an empty text."""
    matches = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def load_yaml(path: Path) -> DictConfig:
    """A YAML file as a mapping.

    Raises:
        UserError: if it is missing, unreadable or no mapping.
    """
    try:
        config = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: a recipe is a mapping of keys to values")
    return config


def find_part(kind: str, name: str, recipe: Path) -> Path:
    """The file ``configs/<kind>/<name>.yaml`` that a recipe composes.

    Looked up beside the recipe's folder, in the working folder, and in the installed package.

    Raises:
        UserError: naming what there is.
    """
    package = Path(__file__).parent
    roots = [recipe.resolve().parent.parent, Path.cwd(), package.parent, package]
    folders = [root / "configs" / kind for root in roots]
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    there = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    raise UserError(
        f"{recipe}: compose.{kind} is {name!r}, but there is no configs/{kind}/{name}.yaml"
        f"{nearest(name, there)} (there are: {', '.join(there) or 'none'})"
    )


def compose(path: Path, overrides: Sequence[str] = ()) -> Composition:
    """Merges what a recipe composes, the recipe itself and ``key=value`` overrides.

    Args:
        path: the recipe.
        overrides: such as "trainer.max_steps=20", the last word on a key.

    Raises:
        UserError: for unreadable files, unknown parts, malformed overrides or interpolations.
    """
    recipe = load_yaml(path)
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise UserError(f"{COMMAND_LINE}: {override!r} is no override; write key=value")
    try:
        given = OmegaConf.from_dotlist(list(overrides))
        parts_asked = OmegaConf.select(OmegaConf.merge(recipe, given), "compose")
        if parts_asked is None:
            parts_asked = OmegaConf.create({})
        if not isinstance(parts_asked, DictConfig):
            raise UserError(f"{path}: compose maps a kind to a name, e.g. {{data: environment}}")
        files = [find_part(str(kind), str(name), path) for kind, name in parts_asked.items()]
        parts = [(str(file), load_yaml(file)) for file in files]
        parts += [(str(path), recipe), (COMMAND_LINE, given)]
        merged = merge(part for _, part in parts)
        values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{path}: {error}") from error
    assert isinstance(values, dict)
    values.pop("compose", None)
    values.setdefault("name", path.stem)
    return Composition({str(key): value for key, value in values.items()}, parts)


def merge(parts: Iterable[DictConfig]) -> DictConfig:
    """Merges configurations, the last word last; another mixer starts with its own defaults."""
    merged = OmegaConf.create({})
    for part in parts:
        chosen = OmegaConf.select(part, "mixer.class_path")
        if chosen is not None and chosen != OmegaConf.select(merged, "mixer.class_path"):
            merged.pop("mixer", None)
        merged = cast(DictConfig, OmegaConf.merge(merged, part))
    return merged
