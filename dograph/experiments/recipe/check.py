"""A recipe, checked by type: every key against the signature of what it builds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from dograph.data.corpus.settings import CorpusSettings
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.experiments.recipe.classes import check_classes, import_mixer
from dograph.experiments.recipe.compose import Composition, flat, nearest
from dograph.mixers.base import BaseMixer
from dograph.reports.settings import ReportSettings
from dograph.signals.sketches import SketchSettings
from dograph.training.language_model import LanguageModel

SECTIONS: dict[str, tuple[type, set[str]]] = {
    "corpus": (CorpusSettings, set()),
    "data": (DataMixer, {"mixer", "corpus", "seed"}),
    "model": (LanguageModel, set()),
    "sketch": (SketchSettings, set()),
    "report": (ReportSettings, set()),
    "trainer": (
        Trainer,
        {"callbacks", "logger", "default_root_dir", "use_distributed_sampler", "max_epochs"}
        | {"enable_checkpointing", "num_sanity_val_steps", "min_epochs", "max_time", "barebones"}
        # A run is one epoch without end: what would cut it into several, or into a trial.
        | {"limit_train_batches", "overfit_batches", "fast_dev_run", "min_steps"}
        | {"reload_dataloaders_every_n_epochs"},
    ),
}
PLAIN_KEYS: dict[str, type] = {"name": str, "seed": int, "runs": str}
PROCESSES_PER_CORE = 8
"""More of them would fork until the machine dies."""
_FOLDER_NAME = re.compile(r"[^/\\\x00-\x1f\x7f-\x9f]{1,100}")
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

    def trainer_arguments(self) -> dict[str, Any]:
        """Those of ``trainer``, with a new object for each ``class_path`` (strategy, plugins)."""
        parser = _parser(*SECTIONS["trainer"])
        section = Namespace(section=self.sections["trainer"])
        return dict(parser.instantiate_classes(section).section.as_dict())

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
    for key, value in flat(values).items():
        for text in (key, *(value if isinstance(value, list) else [value])):
            if isinstance(text, str) and "\0" in text:
                raise UserError(
                    f"{composition.origin(key)}: {key} is {text!r}: it holds a NUL character"
                )
    for key in values:
        if key not in TOP_LEVEL:
            raise _unknown(composition, str(key), TOP_LEVEL)
    seed = values.get("seed", 0)
    sections = {}
    for name, (builds, skip) in SECTIONS.items():
        given = values.get(name) or {}
        sections[name] = check_section(composition, name, builds, given, skip)
    _check_plain(composition)
    _check_trainer(composition, sections["trainer"])
    follow_seed(sections["sketch"], values.get("sketch"), seed)
    built = {
        key: located(composition, key, SECTIONS[key][0], sections.pop(key).as_dict())
        for key in ("corpus", "sketch", "report")
    }
    return Recipe(
        composition,
        name=values["name"],
        seed=seed,
        runs=Path(values.get("runs", "runs")).expanduser(),
        mixer=build_mixer(composition, seed),
        sections=sections,
        **built,
    )


def _check_plain(composition: Composition) -> None:
    """Raises UserError for a name, seed or folder of runs that is none."""
    values = composition.values
    for key, kind in PLAIN_KEYS.items():
        if key in values and type(values[key]) is not kind:
            raise UserError(
                f"{composition.origin(key)}: {key} is {values[key]!r}, expected {kind.__name__}"
            )
    seed, name = values.get("seed", 0), values["name"]
    if not 0 <= seed < 2**31:
        raise UserError(f"{composition.origin('seed')}: seed is {seed}: it must lie in [0, 2³¹)")
    if not _FOLDER_NAME.fullmatch(name) or not name.strip("."):
        raise UserError(
            f"{composition.origin('name')}: name {name!r} is no folder name: no slash, no control "
            "character, at most 100 characters"
        )


def _check_trainer(composition: Composition, section: Namespace) -> None:
    """Raises UserError for validations that a run, one epoch without end, would never come to."""
    every = section.val_check_interval
    if every is not None and every != 1.0 and (type(every) is not int or every < 1):
        raise UserError(
            f"{composition.origin('trainer.val_check_interval')}: trainer.val_check_interval is "
            f"{every!r}: give a number of batches, ≥ 1 (a run has no end to take a share of)"
        )
    most = PROCESSES_PER_CORE * (os.cpu_count() or 1)
    if section.accelerator == "cpu" and isinstance(section.devices, int) and section.devices > most:
        raise UserError(
            f"{composition.origin('trainer.devices')}: trainer.devices is {section.devices}: a "
            f"process each, and this machine has {os.cpu_count()} cores"
        )
    if section.accumulate_grad_batches < 1:
        raise UserError(
            f"{composition.origin('trainer.accumulate_grad_batches')}: "
            f"trainer.accumulate_grad_batches is {section.accumulate_grad_batches}: it must be ≥ 1"
        )
    epochs = section.check_val_every_n_epoch
    if epochs not in (None, 1):
        raise UserError(
            f"{composition.origin('trainer.check_val_every_n_epoch')}: "
            f"trainer.check_val_every_n_epoch is {epochs}: leave it out, a run is one epoch"
        )


def located(
    composition: Composition, key: str, builds: Callable[..., Any], arguments: dict[str, Any]
) -> Any:
    """Calls what takes values of a recipe; one that it refuses is reported with its file.

    Raises:
        UserError: naming the file and, as the message does, the value.
    """
    try:
        return builds(**arguments)
    except UserError as error:
        named = str(error).split(" ", 1)[0].rstrip(":")
        origin = composition.origin(named if named.startswith(f"{key}.") else key)
        raise UserError(f"{origin}: {error}") from error


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
    if key == "trainer":
        check_classes(given, f"{composition.origin(key)}: {key}")
    parser = _parser(builds, skip)
    known = parser.get_defaults().get("section", Namespace())
    for name in skip.intersection(given):
        why = ": a run is one epoch of trainer.max_steps steps" if key == "trainer" else ""
        where = composition.origin(f"{key}.{name}")
        raise UserError(f"{where}: {key}.{name} is not the recipe's to set{why}")
    for path, choices in unknown_keys(given, known):
        raise _unknown(composition, f"{key}.{path}", choices)
    _check_nulls(composition, key, builds, given)
    if not vars(known):
        return known
    try:
        # A copy: the parser would put its own objects into the recipe's lists.
        return parser.parse_object({"section": deepcopy(dict(given))}).section
    except ArgumentError as error:
        raise _wrong_value(composition, key, error) from error


def _parser(builds: type, skip: set[str]) -> ArgumentParser:
    """A parser of a class's arguments; it never builds the class itself."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(builds, nested_key="section", skip=skip, instantiate=False)
    return parser


def _check_nulls(
    composition: Composition, key: str, builds: type, given: Mapping[str, Any]
) -> None:
    """Raises UserError for a null where the class takes none; jsonargparse lets it pass."""
    constructor: Any = builds if is_dataclass(builds) else getattr(builds, "__init__")  # noqa: B009
    hints = get_type_hints(constructor)
    for name, value in given.items():
        hint = hints.get(name, Any)
        if value is None and hint is not Any and type(None) not in get_args(hint):
            where = f"{composition.origin(f'{key}.{name}')}: {key}.{name}"
            raise UserError(f"{where} is null: leave it out, or give it a value")


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
