"""A recipe's values, merged from files and the command line, each with its origin."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dograph.errors import UserError, nearest
from dograph.experiments.recipe.fitted import fitted_mixture
from dograph.experiments.recipe.shipped import find_recipe
from dograph.experiments.recipe.size import check_interpolations
from dograph.files.bounded_yaml import load_bounded

COMMAND_LINE = "command line"
BY_DOMAIN = (
    *("target", "data.cap", "fit.at_most", "fit.prior", "fit.target"),
    *("limits.epochs", "limits.at_least", "limits.at_most", "limits.groups", "limits.ratio"),
)
"""Mappings by domain, beside those in ``mixer.init_args``."""
ARCHITECTURE, FIRST_ARCHITECTURE = "model.architecture", "gpt2"
"""The key that says what ``model.config`` is of, and ``LanguageModel``'s default."""
OF_MIXER = ("mixer", "sketch")
"""Sections that the mixtures of a swarm replace."""


class Part(NamedTuple):
    """Values that are merged onto weaker ones."""

    label: str
    """the file, or "command line"."""
    values: DictConfig
    replaced: Collection[str]
    """dotted keys of mappings that replace what they are merged onto, as a whole."""


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
    return _node(config, key) is not None


def _node(config: DictConfig, key: str) -> Any:
    """What a dotted key holds, without resolving it; None if it is not set."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return None
        node = node._get_node(part)
    return node


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
        path: the recipe, or the name of a shipped one.
        overrides: such as "trainer.max_steps=20", the last word on a key; those of the form
            "stages.proxy.trainer.max_steps=20" are for one stage.
    """

    def __init__(self, path: Path, overrides: Sequence[str] = ()) -> None:
        self.path = find_recipe(path)
        self._recipe = load_yaml(self.path)
        self._overrides, self._replaced = _parse_overrides(overrides)
        self._parts: dict[Path, Part] = {}
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
            merged = merge(parts)
            merged.stages = dict(artefacts or {})
            if "swarm" in list(merged):
                self._check_swarm(stage, merged)
            elif merged.get("fit") is not None:
                self._check_fit_is_read(parts)
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
        replaced_keys = OF_MIXER if "swarm" in values else ("fit",)
        for key in ("compose", "stages", *replaced_keys):
            values.pop(key, None)
        values.setdefault("name", self.path.stem)
        return Composition(
            {str(key): value for key, value in values.items()},
            [(part.label, part.values) for part in parts],
        )

    def _layers(self, stage: str | None, replaced: Mapping[str, Any]) -> list[Part]:
        """All that is merged, weakest first."""
        path, common = str(self.path), ("stages",) if stage is None else ("stages", "rounds")
        own = [_file_part(path, _without(self._recipe, common))]
        asked = [Part(COMMAND_LINE, _without(self._overrides, common), self._replaced)]
        if stage is not None:
            label, above = f"{path}, stage {stage}", f"stages.{stage}."
            own.append(_file_part(label, _stage_values(self._recipe, stage, path)))
            values = _stage_values(self._overrides, stage, COMMAND_LINE)
            keys = [key.removeprefix(above) for key in self._replaced if key.startswith(above)]
            asked.append(Part(COMMAND_LINE, values, keys))
            asked.append(_file_part(label, OmegaConf.create(dict(replaced))))
        merged = OmegaConf.merge(*(part.values for part in own + asked))
        kinds = OmegaConf.select(merged, "compose", default={})
        if not isinstance(kinds, DictConfig | dict):
            raise UserError(f"{path}: compose maps a kind to a name, e.g. {{data: environment}}")
        files = [find_part(str(kind), str(name), self.path) for kind, name in kinds.items()]
        return [self._part(file) for file in files] + own + asked

    def _check_fit_is_read(self, parts: Sequence[Part]) -> None:
        """Raise UserError for a key ``fit`` without effect; another stage may read it."""
        given = [self._recipe, self._overrides, *(part.values for part in parts)]
        if not any("${fit." in str(OmegaConf.to_container(each)) for each in given):
            drawn = "{class_path: dograph.mixers.Fixed, init_args: {weights: '${fit.weights}'}}"
            example = f"mixer: {drawn}"
            raise UserError(f"{self.path}: fit is set, but no key reads it: write {example}")

    def _check_swarm(self, stage: str | None, merged: DictConfig) -> None:
        """Raise UserError for a swarm outside a stage, or beside a file of weights or a mixer."""
        if stage is None:
            example = "stages: {proxies: {swarm: {mixtures: 64}, fit: {law: regmix}}, main: …}"
            raise UserError(f"{self.path}: swarm stands in a stage of its own: write {example}")
        if isinstance(merged.get("fit"), str):
            raise UserError(
                f"{self.path}: fit is {merged.fit!r} beside stages.{stage}.swarm, to which a law "
                "is fitted: write fit: {law: regmix}, or leave the swarm out"
            )
        own = _stage_values(self._recipe, stage, str(self.path))
        if contains(own, "mixer"):
            raise UserError(
                f"{self.path}: stages.{stage} has a mixer and a swarm, whose mixtures are fixed: "
                "leave one out"
            )

    def _part(self, file: Path) -> Part:
        if file not in self._parts:
            self._parts[file] = _file_part(str(file), load_yaml(file))
        return self._parts[file]


def compose(path: Path, overrides: Sequence[str] = ()) -> Composition:
    """Merge a recipe of one run: what it composes, the recipe itself, ``key=value`` overrides."""
    return RecipeFile(path, overrides).compose()


def _parse_overrides(overrides: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """All overrides' values, and the dotted keys of mappings by domain that are given whole."""
    values, replaced = OmegaConf.create({}), list[str]()
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise UserError(f"{COMMAND_LINE}: invalid override {override!r}: write key=value")
        key = override.partition("=")[0].replace("[", ".").replace("]", "")
        try:
            own = OmegaConf.from_dotlist([override])
            whole = [mapping for mapping in _by_domain(own) if f"{mapping}.".startswith(f"{key}.")]
            if not whole and isinstance(_node(own, key), DictConfig) and any(_by_domain(own)):
                whole = [key]  # a mapping below one by domain, such as a row of a graph
            for mapping in whole:
                _remove(values, mapping)
            values.merge_with(own)
        except (OmegaConfBaseException, YAMLError, TypeError) as error:
            raise UserError(f"{COMMAND_LINE}: {error}") from error
        replaced += whole
    return values, replaced


def _by_domain(values: DictConfig) -> Iterator[str]:
    """Dotted keys of the mappings by domain in a configuration, those of stages included."""
    yield from (key for key in BY_DOMAIN if contains(values, key))
    arguments = _node(values, "mixer.init_args")
    for name in map(str, arguments if isinstance(arguments, DictConfig) else ()):
        given = _node(arguments, name)
        if isinstance(given, DictConfig) and not {"class_path", "init_args"}.intersection(given):
            yield f"mixer.init_args.{name}"
    stages = _node(values, "stages")
    for name in map(str, stages if isinstance(stages, DictConfig) else ()):
        if isinstance(own := _node(stages, name), DictConfig):
            yield from (f"stages.{name}.{key}" for key in _by_domain(own))


def _remove(config: DictConfig, key: str) -> None:
    """Remove a dotted key, if it is set."""
    above, _, name = key.rpartition(".")
    if contains(config, key):
        del (_node(config, above) if above else config)[name]


def _file_part(label: str, values: DictConfig) -> Part:
    """A part in which every mapping is given whole."""
    return Part(label, values, list(_by_domain(values)))


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


def merge(parts: Iterable[Part]) -> DictConfig:
    """Merge parts, the last word last.

    Another mixer, and the configuration of another architecture or of a pretrained model, start
    with their own defaults. A mapping by domain that is given whole replaces what came before:
    another corpus has other domains.
    """
    merged = OmegaConf.create({})
    for part in parts:
        before, chosen = (OmegaConf.select(c, "mixer.class_path") for c in (merged, part.values))
        if chosen is not None and not _same_class(str(before), str(chosen)):
            merged.pop("mixer", None)
        before = OmegaConf.select(merged, ARCHITECTURE, default=FIRST_ARCHITECTURE)
        chosen = OmegaConf.select(part.values, ARCHITECTURE)
        pretrained = OmegaConf.select(part.values, "model.pretrained")
        if chosen not in (None, before) or pretrained is not None:
            _remove(merged, "model.config")
        for key in part.replaced:
            _remove(merged, key)
        merged.merge_with(part.values)
    return merged


def _same_class(one: str, other: str) -> bool:
    """Whether two class paths name one class, e.g. by the module that defines it or imports it.

    What is called otherwise is another class, and is not imported.
    """
    if one == other or one.rpartition(".")[2] != other.rpartition(".")[2]:
        return one == other
    from dograph.experiments.recipe.classes import import_mixer  # only now: it imports torch

    try:
        return import_mixer(one, "recipe") is import_mixer(other, "recipe")
    except UserError:  # what cannot be imported is named once the recipe is checked
        return False
