"""A recipe, checked by type: every key against the signature of what it builds."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from dograph.composition import Composition, nearest
from dograph.corpus.settings import CorpusSettings
from dograph.data.mixer import DataMixer
from dograph.errors import UserError
from dograph.mixers.base import BaseMixer
from dograph.model import LanguageModel
from dograph.report.settings import ReportSettings
from dograph.signals.sketches import SketchSettings

SECTIONS: dict[str, tuple[type, set[str]]] = {
    "corpus": (CorpusSettings, set()),
    "data": (DataMixer, {"mixer", "corpus", "seed"}),
    "model": (LanguageModel, set()),
    "sketch": (SketchSettings, set()),
    "report": (ReportSettings, set()),
    "trainer": (
        Trainer,
        {"callbacks", "logger", "default_root_dir", "use_distributed_sampler", "max_epochs"}
        | {"enable_checkpointing", "num_sanity_val_steps", "min_epochs", "max_time", "barebones"},
    ),
}
PLAIN_KEYS: dict[str, type] = {"name": str, "seed": int, "runs": str}
TOP_LEVEL = ("compose", "mixer", *PLAIN_KEYS, *SECTIONS)


@dataclass
class Recipe:
    """A checked recipe: every section's arguments with defaults filled in, mixer built.

    Attributes:
        composition: where it came from.
        name: of the experiment; the recipe's file name by default.
        seed: of everything random.
        runs: folder that holds the runs.
        corpus: what is prepared.
        sketch: how gradients are sketched.
        report: how often the run is reported.
        mixer: built from ``class_path`` and ``init_args``.
        sections: the checked arguments of ``data``, ``model`` and ``trainer``.
    """

    composition: Composition
    name: str
    seed: int
    runs: Path
    corpus: CorpusSettings
    sketch: SketchSettings
    report: ReportSettings
    mixer: BaseMixer
    sections: dict[str, Namespace]

    def arguments(self, section: str) -> dict[str, Any]:
        """The keyword arguments of ``data``, ``model`` or ``trainer``."""
        return self.sections[section].as_dict()

    def as_yaml(self) -> str:
        """The resolved recipe; running it again needs no other file."""
        return OmegaConf.to_yaml(OmegaConf.create(self.composition.values))


def check(composition: Composition) -> Recipe:
    """Checks every key of a composition against the type hints of what it builds.

    Raises:
        UserError: naming file, key and remedy, for unknown keys at any depth, wrong types,
            and values that a class refuses.
    """
    values = composition.values
    for key in values:
        if key not in TOP_LEVEL:
            raise _unknown(composition, str(key), TOP_LEVEL)
    seed = values.get("seed", 0)
    sections = {}
    for name, (builds, skip) in SECTIONS.items():
        given = values.get(name) or {}
        sections[name] = check_section(composition, name, builds, given, skip)
    for key, kind in PLAIN_KEYS.items():
        if key in values and not isinstance(values[key], kind):
            raise UserError(
                f"{composition.origin(key)}: {key} is {values[key]!r}, expected {kind.__name__}"
            )
    if not 0 <= seed < 2**31:
        raise UserError(f"{composition.origin('seed')}: seed is {seed}: it must lie in [0, 2³¹)")
    follow_seed(sections["sketch"], values.get("sketch"), seed)
    if not str(values["name"]).strip("."):
        raise UserError(f"{composition.origin('name')}: name {values['name']!r} names no folder")
    if "/" in values["name"] or "\\" in values["name"]:
        raise UserError(f"{composition.origin('name')}: name {values['name']!r} is no folder name")
    built = {
        key: located(composition, key, SECTIONS[key][0], sections.pop(key).as_dict())
        for key in ("corpus", "sketch", "report")
    }
    return Recipe(
        composition,
        name=values["name"],
        seed=seed,
        runs=Path(values.get("runs", "runs")),
        mixer=build_mixer(composition, seed),
        sections=sections,
        **built,
    )


def located(composition: Composition, key: str, builds: type, arguments: dict[str, Any]) -> Any:
    """Builds a class; a value that it refuses is reported with its file.

    Raises:
        UserError: naming the file and, as the class does, the value.
    """
    try:
        return builds(**arguments)
    except UserError as error:
        raise UserError(f"{composition.origin(key)}: {error}") from error


def check_section(
    composition: Composition, key: str, builds: type, given: Any, skip: set[str]
) -> Namespace:
    """One section's arguments with defaults filled in.

    Args:
        composition: for the origin of keys.
        key: of the section, dotted.
        builds: class whose signature the section must fit.
        given: the section's values.
        skip: arguments that are not the recipe's to set.

    Raises:
        UserError: for an unknown key or a value of the wrong type.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{composition.origin(key)}: {key} must be a mapping, got {given!r}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(builds, nested_key="section", skip=skip)
    known = parser.get_defaults().get("section", Namespace())
    for path, choices in unknown_keys(given, known):
        raise _unknown(composition, f"{key}.{path}", choices)
    if not vars(known):
        return known
    try:
        return parser.parse_object({"section": dict(given)}).section
    except ArgumentError as error:
        raise _wrong_value(composition, key, error) from error


def unknown_keys(given: Mapping[str, Any], known: Namespace) -> Iterator[tuple[str, list[str]]]:
    """Dotted keys of ``given`` that ``known`` lacks, each with the keys that it might have been."""
    choices = list(vars(known))
    for key, value in given.items():
        if key not in choices:
            yield str(key), choices
        elif isinstance(vars(known)[key], Namespace) and isinstance(value, Mapping):
            for path, inner in unknown_keys(value, vars(known)[key]):
                yield f"{key}.{path}", inner


def follow_seed(arguments: Namespace, given: Mapping[str, Any] | None, seed: int) -> None:
    """Lets a part's own ``seed`` be the recipe's, unless the recipe sets it."""
    if "seed" in arguments and "seed" not in (given or {}):
        arguments.seed = seed


def build_mixer(composition: Composition, seed: int) -> BaseMixer:
    """Imports and builds the recipe's mixer; its ``seed``, if it takes one, is the recipe's.

    Raises:
        UserError: if it cannot be imported, is no BaseMixer, or its arguments do not fit.
    """
    given = composition.values.get("mixer")
    origin = composition.origin("mixer")
    if not isinstance(given, Mapping) or "class_path" not in given:
        raise UserError(
            f"{origin}: mixer must name a class, e.g. "
            "mixer: {class_path: dograph.mixers.Stratified}"
        )
    for key in given:
        if key not in ("class_path", "init_args"):
            raise _unknown(composition, f"mixer.{key}", ("class_path", "init_args"))
    builds = import_mixer(str(given["class_path"]), composition.origin("mixer.class_path"))
    arguments = check_section(
        composition, "mixer.init_args", builds, given.get("init_args") or {}, set()
    )
    follow_seed(arguments, given.get("init_args"), seed)
    mixer: BaseMixer = located(composition, "mixer.init_args", builds, arguments.as_dict())
    return mixer


def import_mixer(class_path: str, origin: str) -> type[BaseMixer]:
    """The mixer class at an import path.

    Raises:
        UserError: if there is none, or it is no subclass of BaseMixer.
    """
    module_name, _, class_name = class_path.rpartition(".")
    where = f"{origin}: mixer.class_path {class_path!r}"
    try:
        module = importlib.import_module(module_name) if module_name else None
    except ImportError as error:
        raise UserError(
            f"{where} cannot be imported ({error}); is its folder on PYTHONPATH?"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise UserError(f"{where} names nothing{nearest(class_name, dir(module))}")
    if not (isinstance(found, type) and issubclass(found, BaseMixer)):
        raise UserError(f"{where} is no subclass of dograph.mixers.BaseMixer")
    return found


def _unknown(composition: Composition, key: str, choices: Sequence[str]) -> UserError:
    word = key.rpartition(".")[2]
    hint = nearest(word, choices) or f"; known keys: {', '.join(sorted(choices)) or 'none'}"
    return UserError(f"{composition.origin(key)}: unknown key {key!r}{hint}")


def _wrong_value(composition: Composition, section: str, error: ArgumentError) -> UserError:
    text = str(error)
    key = section
    if 'Parser key "section.' in text:
        inner = text.split('Parser key "section.', 1)[1].split('"', 1)[0]
        key = f"{section}.{inner}"
        text = text.split(":", 1)[1]
    reason = " ".join(text.replace("section.", f"{section}.").split())
    reason = re.sub(r"a <class '(?:\w+\.)*(\w+)'>", r"\1", reason)
    reason = re.sub(r"a typing\.(Literal|Union|Optional)", r"\1", reason)
    return UserError(f"{composition.origin(key)}: {key}: {reason}")
