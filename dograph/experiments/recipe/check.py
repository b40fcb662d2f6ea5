"""A recipe, checked before anything runs: every key by type, its model by building it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from dograph.data.corpus.settings import CorpusSettings
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError, check_range
from dograph.experiments.rank_zero import is_rank_zero
from dograph.experiments.recipe.classes import import_mixer
from dograph.experiments.recipe.compose import FIRST_ARCHITECTURE, Composition, contains
from dograph.experiments.recipe.loggers import LoggerSettings, read_loggers
from dograph.experiments.recipe.section import build, check_section, section_parser, unknown_key
from dograph.experiments.recipe.swarm_section import SwarmSettings, read_swarm
from dograph.files.changes import flat
from dograph.files.home import expand_home
from dograph.mixers.base import BaseMixer
from dograph.mixers.declared import check_declared
from dograph.mixers.fixed import Stratified
from dograph.mixers.limits import Limits
from dograph.mixers.random_state import random_state_kept
from dograph.mixers.target import Target
from dograph.mixers.user_code import mixer_errors
from dograph.reports.settings import ReportSettings
from dograph.signals.sketches import SketchSettings
from dograph.training.language_model import LanguageModel
from dograph.training.network import build_network, network_settings, takes
from dograph.training.optimizers import check_optimizer, check_schedule

if TYPE_CHECKING:
    from dograph.experiments.laws.fit import FitSettings

logger = logging.getLogger(__name__)

SECTIONS: dict[str, tuple[type, set[str]]] = {
    "corpus": (CorpusSettings, set()),
    "data": (DataMixer, {"mixer", "corpus", "seed", "target", "limits"}),
    "limits": (Limits, set()),
    "model": (LanguageModel, set()),
    "sketch": (SketchSettings, set()),
    "report": (ReportSettings, set()),
    "trainer": (
        Trainer,
        {"callbacks", "logger", "default_root_dir", "use_distributed_sampler", "max_epochs"}
        | {"enable_checkpointing", "num_sanity_val_steps", "min_epochs", "max_time", "barebones"}
        # A run is one endless epoch: these would cut it into several, or shorten it to a trial.
        | {"limit_train_batches", "overfit_batches", "fast_dev_run", "min_steps"}
        | {"reload_dataloaders_every_n_epochs"},
    ),
}
"""What each section builds, and the arguments that a recipe cannot set."""
PLAIN_KEYS: dict[str, type] = {"name": str, "seed": int, "runs": str}
PROCESSES_PER_CORE = 8
"""Maximum; with more the machine would stop responding."""
_FOLDER_NAME = re.compile(r"[^/\\\x00-\x1f\x7f-\x9f]{1,100}")
TOP_LEVEL = ("compose", "mixer", "target", "swarm", "fit", *PLAIN_KEYS, *SECTIONS)
WITH_NANO = ("gpt_neox", "llama", "qwen3")
"""Architectures beside gpt2 that ``configs/model/`` has at nano size."""
_buildable: set[str] = set()
"""Models that this process has built without memory, by architecture and configuration."""


@dataclass
class Recipe:
    """A checked recipe: every section's arguments with defaults filled in, mixer built."""

    composition: Composition
    name: str
    """name of the experiment; the recipe's file name by default."""
    seed: int
    """seed of everything random."""
    runs: Path
    """folder that holds the runs."""
    corpus: CorpusSettings
    sketch: SketchSettings
    report: ReportSettings
    limits: Limits
    target: Target
    mixer: BaseMixer
    sections: dict[str, Namespace]
    """the checked arguments of ``data``, ``model`` and ``trainer``."""
    swarm: tuple[SwarmSettings, FitSettings] | None = None
    """of a stage that is a swarm: its mixtures, and the law that is fitted; ``mixer`` is unused."""
    started_from: Mapping[str, Any] | None = None
    """the run that the mixer's start weights come from, and what became of its domains."""
    loggers: list[LoggerSettings] = field(default_factory=list)
    """loggers beside TensorBoard."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return int(self.sections["trainer"].max_steps)

    def arguments(self, section: str) -> dict[str, Any]:
        """The keyword arguments of ``data``, ``model`` or ``trainer``."""
        return self.sections[section].as_dict()

    def trainer_arguments(self) -> dict[str, Any]:
        """Those of ``trainer``, with a new object for each ``class_path`` (strategy, plugins)."""
        parser = section_parser(*SECTIONS["trainer"])
        section = Namespace(section=self.sections["trainer"])
        return dict(parser.instantiate_classes(section).section.as_dict())

    def as_yaml(self) -> str:
        """The resolved recipe; running it again needs no other file."""
        return OmegaConf.to_yaml(OmegaConf.create(self.composition.values))


def check(composition: Composition) -> Recipe:
    """Check every key, at any depth, against the type hints of what it builds.

    Builds the mixer, and the model without memory. Errors name file, key and remedy.
    """
    values = composition.values
    _check_text(composition)
    for key in values:
        if key not in TOP_LEVEL:
            raise unknown_key(composition, str(key), TOP_LEVEL)
    _check_sections(composition)
    sections = {
        name: check_section(composition, name, builds, given_section(values, name), skip)
        for name, (builds, skip) in SECTIONS.items()
    }
    loggers = read_loggers(composition)
    _check_plain(composition)
    _check_trainer(composition, sections["trainer"])
    seed = values.get("seed", 0)
    _follow_seed(sections["sketch"], values.get("sketch") or {}, seed)
    settings = {
        key: build(composition, key, SECTIONS[key][0], sections.pop(key).as_dict())
        for key in ("corpus", "sketch", "report", "limits")
    }
    given = {"value": values.get("target"), "unseen": sections["data"].unseen}
    settings["target"] = build(composition, "target", Target.parse, given)
    swarm = read_swarm(composition, seed)
    mixer = build_mixer(composition, seed) if swarm is None else Stratified()
    _check_model(composition, sections["model"].as_dict())
    _check_warmup(composition, sections["model"].warmup, sections["trainer"].max_steps)
    runs = expand_home(values.get("runs", "runs"), "runs")
    named = (composition, values["name"], seed, runs)
    settings |= {"loggers": loggers, "swarm": swarm}
    return Recipe(*named, mixer=mixer, sections=sections, **settings)


def given_section(values: Mapping[str, Any], section: str) -> Any:
    """A section's values, without ``trainer.logger``, which is checked by itself."""
    given = values.get(section) or {}
    if section != "trainer" or not isinstance(given, Mapping):
        return given
    return {key: value for key, value in given.items() if key != "logger"}


def check_again(recipe: Recipe, composition: Composition) -> Recipe:
    """A recipe with other values and a new mixer; only what differs from ``recipe`` is checked.

    Artefacts of earlier stages seldom change more than the mixer's arguments.
    """
    before, now = (
        {key: value for key, value in each.values.items() if key != "mixer"}
        for each in (recipe.composition, composition)
    )
    if before != now:
        return check(composition)
    _check_text(composition)
    if recipe.swarm is not None:
        return replace(recipe, composition=composition)
    return replace(recipe, composition=composition, mixer=build_mixer(composition, recipe.seed))


def build_mixer(composition: Composition, seed: int) -> BaseMixer:
    """Import and build the recipe's mixer; its ``seed``, if it takes one, is the recipe's."""
    given = composition.values.get("mixer")
    if not isinstance(given, Mapping) or "class_path" not in given:
        example = "mixer: {class_path: dograph.mixers.Stratified}"
        raise composition.error("mixer", f"must name a class, e.g. {example}")
    for key in given:
        if key not in ("class_path", "init_args"):
            raise unknown_key(composition, f"mixer.{key}", ("class_path", "init_args"))
    builds = import_mixer(str(given["class_path"]), composition.origin("mixer.class_path"))
    init_args = given.get("init_args") or {}
    arguments = check_section(composition, "mixer.init_args", builds, init_args, set())
    _follow_seed(arguments, init_args, seed)

    def build_with_parts() -> BaseMixer:
        with mixer_errors(builds), random_state_kept(seed):
            parts = section_parser(builds, set()).instantiate_classes(Namespace(section=arguments))
            mixer = builds(**vars(parts.section))
        check_declared(mixer)
        return mixer

    mixer: BaseMixer = build(composition, "mixer.init_args", build_with_parts, {})
    return mixer


def _follow_seed(arguments: Namespace, given: Mapping[str, Any], seed: int) -> None:
    """Set a part's own ``seed`` to the recipe's, unless the recipe sets it."""
    if "seed" in arguments and "seed" not in given:
        arguments.seed = seed


def _check_text(composition: Composition) -> None:
    for key, value in flat(composition.values).items():
        for text in (key, *(value if isinstance(value, list) else [value])):
            if isinstance(text, str) and "\0" in text:
                raise composition.error(key, f"is {text!r}: remove its NUL character")


def _check_sections(composition: Composition) -> None:
    """Raise UserError for a section without keys: it would erase all that it is merged onto."""
    for label, part in composition.parts:
        for name in SECTIONS:
            if contains(part, name) and OmegaConf.select(part, name) is None:
                remedy = "give it keys, or leave it out"
                raise UserError(f"{label}: {name} is empty: {remedy}")


def _check_plain(composition: Composition) -> None:
    """Raise UserError for an invalid name, seed or folder of runs."""
    values = composition.values
    for key, kind in PLAIN_KEYS.items():
        if key in values and type(values[key]) is not kind:
            raise composition.error(key, f"is {values[key]!r}, expected {kind.__name__}")
    where = f"{composition.origin('seed')}: seed"
    check_range(where, values.get("seed", 0), at_least=0, below=2**31)
    name = values["name"]
    if not _FOLDER_NAME.fullmatch(name) or not name.strip("."):
        remedy = "use no slash, no control character, at most 100 characters"
        raise composition.error("name", f"is {name!r}, an invalid folder name: {remedy}")


def _check_trainer(composition: Composition, section: Namespace) -> None:
    """Raise UserError for values under which a run would not start, validate or end."""
    every, cores = section.val_check_interval, os.cpu_count() or 1
    validates = every in (None, 1.0) or (type(every) is int and every >= 1)
    batches = "give a number of batches, ≥ 1 (a run has no end to take a share of)"
    on_cpu = section.accelerator == "cpu" and isinstance(section.devices, int)
    few = not on_cpu or section.devices <= PROCESSES_PER_CORE * cores
    one_epoch = section.check_val_every_n_epoch in (None, 1)
    bound = section.gradient_clip_val  # a negative one would turn gradients round
    for name, fits, remedy in (
        ("max_steps", (section.max_steps or 0) > 0, "set it ≥ 1"),
        ("val_check_interval", validates, batches),
        ("devices", few, f"a process each, and this machine has {cores} cores"),
        ("accumulate_grad_batches", section.accumulate_grad_batches >= 1, "it must be ≥ 1"),
        ("check_val_every_n_epoch", one_epoch, "leave it out, a run is one epoch"),
        ("gradient_clip_val", bound is None or bound >= 0, "it must be ≥ 0 (0 clips nothing)"),
    ):
        if not fits:
            raise composition.error(f"trainer.{name}", f"is {section[name]!r}: {remedy}")


def _check_model(composition: Composition, arguments: dict[str, Any]) -> None:
    """Build the network without memory, so that a mistake shows before a corpus is prepared."""
    schedule = {key: arguments[key] for key in signature(check_schedule).parameters}
    build(composition, "model", check_schedule, schedule)
    build(composition, "model", check_optimizer, {"optimizer": arguments["optimizer"]})
    architecture, config = arguments["architecture"], arguments["config"] or {}
    network = {"architecture": architecture, "config": config}
    if (pretrained := arguments["pretrained"]) is not None:
        build(composition, "model", network_settings, {**network, "pretrained": pretrained})
        return
    if not config and architecture != FIRST_ARCHITECTURE:
        raise composition.error("model.config", _without_sizes(architecture))
    network["attention"] = arguments["attention"]
    if repr(network) not in _buildable:
        with torch.device("meta"):
            build(composition, "model", build_network, network)
        _buildable.add(repr(network))


def _without_sizes(architecture: str) -> str:
    """What is wrong with an architecture whose sizes a recipe leaves to transformers' defaults."""
    sizes = {"hidden_size": 160, "num_hidden_layers": 4, "num_attention_heads": 5}
    own = {key: size for key, size in sizes.items() if takes(architecture, key)}
    example = ", ".join(f"{key}: {size}" for key, size in own.items())
    remedy = f"give it, e.g. model.config='{{{example}}}'"
    if architecture in WITH_NANO:
        remedy = f"take compose.model={architecture}_nano in place of it, or {remedy}"
    return (
        f"is missing beside model.architecture={architecture}, whose defaults are those of a "
        f"published model, often of billions of parameters: {remedy}"
    )


def _check_warmup(composition: Composition, warmup: int, steps: int) -> None:
    """Warn of a learning rate that only rises, whoever set which of the two keys."""
    if warmup >= steps and is_rank_zero():
        _warn_once(
            f"{composition.origin('model.warmup')}: model.warmup is {warmup}, but the run ends "
            f"after {steps} steps (trainer.max_steps): its learning rate only rises, to "
            f"{steps / warmup:.0%} of model.learning_rate: lower model.warmup, or train longer"
        )


@cache
def _warn_once(text: str) -> None:
    """Log a warning, unless this process has: a sweep checks a recipe for every seed."""
    logger.warning("%s", text)
