"""Loggers that a recipe names beside TensorBoard: Lightning's own, or the user's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from dograph.errors import UserError
from dograph.experiments.recipe.classes import import_logger
from dograph.experiments.recipe.compose import Composition
from dograph.experiments.recipe.section import unknown_key
from dograph.files.changes import flat

KEY = "trainer.logger"
EXAMPLE = f"{KEY}: {{class_path: lightning.pytorch.loggers.CSVLogger}}"
FOLDERS = ("save_dir", "root_dir", "dir", "log_dir", "offline_directory")
"""Arguments that say where a logger writes: the run's folder, in whichever of them it takes."""
OUTSIDE = re.compile(r"^(/|~|file:)|(^|/)\.\.(/|$)")
"""Texts that could lead a logger out of the run's folder."""


@dataclass(frozen=True)
class LoggerSettings:
    """A logger's class and arguments, and the file and key that name it."""

    where: str
    builds: type[Logger]
    arguments: Mapping[str, Any]

    def build(self, folder: Path) -> Logger:
        """The logger; what it writes is in the run's folder."""
        takes = inspect.signature(self.builds).parameters
        place = next(({name: str(folder)} for name in FOLDERS if name in takes), {})
        try:
            return self.builds(**self.arguments, **place)
        except ImportError as error:
            remedy = "install that package, or leave the logger out"
            raise UserError(f"{self.where} cannot be used: {error}: {remedy}") from error
        except (TypeError, ValueError, MisconfigurationException) as error:
            raise UserError(f"{self.where}: {self.builds.__name__}: {error}") from error


def read_loggers(composition: Composition) -> list[LoggerSettings]:
    """The loggers of ``trainer.logger``: one, or a list; none without the key.

    Raises:
        UserError: for a class that is no logger or cannot be imported, unknown arguments, and
            arguments that would lead it out of the run's folder.
    """
    trainer = composition.values.get("trainer")
    given = trainer.get("logger") if isinstance(trainer, Mapping) else None
    if given is None:
        return []
    if not isinstance(given, list):
        return [_read(composition, given, KEY)]
    return [_read(composition, each, f"{KEY}[{index}]") for index, each in enumerate(given)]


def _read(composition: Composition, given: Any, key: str) -> LoggerSettings:
    where = f"{composition.origin(KEY)}: {key}"
    if not isinstance(given, Mapping) or "class_path" not in given:
        what = "every run has a TensorBoard; further loggers are classes"
        raise UserError(f"{where} is {given!r}: {what}, e.g. {EXAMPLE}")
    if unknown := [name for name in given if name not in ("class_path", "init_args")]:
        raise unknown_key(composition, f"{key}.{unknown[0]}", ("class_path", "init_args"))
    builds = import_logger(str(given["class_path"]), f"{where}.class_path")
    arguments = given.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}.init_args is {arguments!r}: it must be a mapping")
    _check_arguments(composition, builds, arguments, f"{key}.init_args")
    return LoggerSettings(where, builds, dict(arguments))


def _check_arguments(
    composition: Composition, builds: type, arguments: Mapping[str, Any], key: str
) -> None:
    parameters = inspect.signature(builds).parameters.values()
    known = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    where = composition.origin(KEY)
    for name in arguments:
        if name in FOLDERS:
            raise UserError(f"{where}: {key}.{name} is the run's folder: leave it out")
        if name not in known and not takes_any:
            raise unknown_key(composition, f"{key}.{name}", known)
    for name, value in flat(arguments).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and OUTSIDE.search(text):
                what = "it could lead out of the run's folder: give a name, or an http(s) address"
                raise UserError(f"{where}: {key}.{name} is {text!r}: {what}")


def finish(logger: Logger) -> None:
    """End what a logger would else carry into the process's next run, as wandb does."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
