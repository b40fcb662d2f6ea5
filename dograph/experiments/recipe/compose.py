"""A recipe's values, merged from files and the command line, each with its origin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dograph.errors import UserError, nearest
from dograph.experiments.recipe.fitted import fitted_mixture
from dograph.experiments.recipe.limits import check_interpolations
from dograph.files.bounded_yaml import load_bounded

COMMAND_LINE = "command line"
WHOLE = ("target", "data.cap")
"""Mappings by domain that are replaced, never merged: another corpus has other domains."""


@dataclass
class Composition:
    """A recipe's values and which file each came from."""

    values: dict[str, Any]
    """everything merged and resolved, without ``compose`` and ``fit``."""
    parts: list[tuple[str, DictConfig]]
    """(file or "command line", its own values), weakest first."""

    def origin(self, key: str) -> str:
        """The file, or the command line, that had the last word on a dotted key."""
        for label, part in reversed(self.parts):
            if contains(part, key):
                return label
        # Otherwise the recipe itself, which could have set the key.
        return next(label for label, _ in reversed(self.parts) if label != COMMAND_LINE)

    def error(self, key: str, mistake: str) -> UserError:
        """The error for a dotted key: its origin, the key, and the mistake with its remedy."""
        return UserError(f"{self.origin(key)}: {key} {mistake}")


def contains(config: DictConfig, key: str) -> bool:
    """Whether a dotted key is set in a configuration."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def load_yaml(path: Path) -> DictConfig:
    """Read a YAML file that holds a mapping."""
    try:
        config = load_bounded(path)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, YAMLError, ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: a recipe is a mapping of keys to values")
    return config


def find_part(kind: str, name: str, recipe: Path) -> Path:
    """``configs/<kind>/<name>.yaml`` beside the recipe's folder, in the working one, or ours."""
    for word in (kind, name):
        if not re.fullmatch(r"\w[\w.-]*", word):
            raise UserError(f"{recipe}: compose.{kind} is {name!r}: name a file in configs/")
    package = Path(__file__).parents[2]
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


class RecipeFile:
    """A recipe's file and overrides, read once; the values of each stage are merged from these.

    Args:
        path: the recipe.
        overrides: such as "trainer.max_steps=20", the last word on a key; those of the form
            "stages.proxy.trainer.max_steps=20" are for one stage.
    """

    def __init__(self, path: Path, overrides: Sequence[str] = ()) -> None:
        self.path = path
        self._recipe = load_yaml(path)
        self._overrides = _parse_overrides(overrides)
        self._parts: dict[Path, DictConfig] = {}
        self.stages = self._stage_names()
        """the stages' names in the order in which they run; none for a recipe of one run."""

    def _stage_names(self) -> list[str]:
        if "stages" not in list(self._recipe):  # `in` alone is False for a missing value, ???
            if "stages" in list(self._overrides):
                raise UserError(f"{COMMAND_LINE}: {self.path} has no stages: leave stages.… out")
            return []
        stages = self._recipe._get_node("stages")
        if not isinstance(stages, DictConfig) or not stages:
            raise UserError(
                f"{self.path}: stages maps names to what differs in them, e.g. {{main: {{}}}}"
            )
        names = [str(name) for name in stages]
        for name in names:
            if not name.replace("_", "").isalnum():
                where = f"{self.path}: stages.{name}"
                raise UserError(f"{where} is an invalid name: letters, digits and _ only")
        overridden = self._overrides.get("stages", OmegaConf.create({}))
        if not isinstance(overridden, DictConfig):
            where = f"{COMMAND_LINE}: stages"
            raise UserError(f"{where} is {overridden!r}: write stages.NAME.key=value")
        for name in map(str, overridden):
            if name not in names:
                raise UserError(f"{COMMAND_LINE}: there is no stage {name!r}{nearest(name, names)}")
        return names

    def compose(
        self,
        stage: str | None = None,
        artefacts: Mapping[str, Mapping[str, Any]] | None = None,
        replaced: Mapping[str, Any] | None = None,
    ) -> Composition:
        """Merge what the recipe composes, the recipe itself and the overrides.

        Args:
            stage: one of ``stages``; its own values replace the recipe's common ones.
            artefacts: what ``${stages.NAME...}`` stands for, by the names of earlier stages.
            replaced: values of a stage that replace the recipe's and the overrides'.
        """
        try:
            parts = self._layers(stage, replaced or {})
            merged = merge(part for _, part in parts)
            merged.stages = dict(artefacts or {})
            if merged.get("fit") is not None:
                merged.fit = fitted_mixture(merged.fit, self.path)
            check_interpolations(merged, self.path)
            values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
        except (
            OmegaConfBaseException,
            YAMLError,
            TypeError,
        ) as error:  # TypeError: a list for a mapping
            raise UserError(f"{self.path}: {error}") from error
        assert isinstance(values, dict)
        for key in ("compose", "stages", "fit"):
            values.pop(key, None)
        values.setdefault("name", self.path.stem)
        return Composition({str(key): value for key, value in values.items()}, parts)

    def _layers(
        self, stage: str | None, replaced: Mapping[str, Any]
    ) -> list[tuple[str, DictConfig]]:
        """(file or "command line", its values) of all that is merged, weakest first."""
        path, common = str(self.path), ("stages",) if stage is None else ("stages", "rounds")
        own = [(path, _without(self._recipe, common))]
        asked = [(COMMAND_LINE, _without(self._overrides, common))]
        if stage is not None:
            own.append((f"{path}, stage {stage}", _stage_values(self._recipe, stage, path)))
            asked.append((COMMAND_LINE, _stage_values(self._overrides, stage, COMMAND_LINE)))
            asked.append((f"{path}, stage {stage}", OmegaConf.create(dict(replaced))))
        merged = OmegaConf.merge(*(part for _, part in own + asked))
        kinds = OmegaConf.select(merged, "compose", default={})
        if not isinstance(kinds, DictConfig | dict):
            raise UserError(f"{path}: compose maps a kind to a name, e.g. {{data: environment}}")
        files = [find_part(str(kind), str(name), self.path) for kind, name in kinds.items()]
        return [(str(file), self._part(file)) for file in files] + own + asked

    def _part(self, file: Path) -> DictConfig:
        if file not in self._parts:
            self._parts[file] = load_yaml(file)
        return self._parts[file]


def compose(path: Path, overrides: Sequence[str] = ()) -> Composition:
    """Merge a recipe of one run: what it composes, the recipe itself, ``key=value`` overrides."""
    return RecipeFile(path, overrides).compose()


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise UserError(f"{COMMAND_LINE}: invalid override {override!r}: write key=value")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{COMMAND_LINE}: {error}") from error


def _without(config: DictConfig, keys: Sequence[str]) -> DictConfig:
    # Keys that are not text stay, to be refused by name.
    kept: list[Any] = [key for key in config if key not in keys]
    return OmegaConf.masked_copy(config, kept)


def _stage_values(config: DictConfig, stage: str, origin: str) -> DictConfig:
    values = OmegaConf.select(config, f"stages.{stage}")
    if values is None:
        return OmegaConf.create({})
    if not isinstance(values, DictConfig):
        raise UserError(f"{origin}: stages.{stage} must be a mapping, got {values!r}")
    return values


def merge(parts: Iterable[DictConfig]) -> DictConfig:
    """Merge configurations, the last word last.

    Another mixer starts with its own defaults; the keys in ``WHOLE`` keep their last value alone.
    """
    merged = OmegaConf.create({})
    for part in parts:
        chosen = OmegaConf.select(part, "mixer.class_path")
        if chosen is not None and chosen != OmegaConf.select(merged, "mixer.class_path"):
            merged.pop("mixer", None)
        for key in WHOLE:
            if contains(part, key):
                section, _, name = key.rpartition(".")
                before = OmegaConf.select(merged, section) if section else merged
                if isinstance(before, DictConfig):
                    before.pop(name, None)
        merged = cast(DictConfig, OmegaConf.merge(merged, part))
    return merged
