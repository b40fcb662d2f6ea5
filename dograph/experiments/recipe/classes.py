"""Classes that a recipe names: importable ones of the expected base type, and nothing else."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.plugins import LayerSync, Precision
from lightning.pytorch.strategies import Strategy

from dograph.errors import UserError, nearest
from dograph.mixers.base import BaseMixer
from dograph.mixers.user_code import first_line, line_of

PARTS = (Strategy, Precision, ClusterEnvironment, LayerSync, CheckpointIO)
"""Base classes of what a trainer may be given as a class."""
RUN_CODE = (
    *("ddp_comm_state", "ddp_comm_hook", "ddp_comm_wrapper"),
    *("auto_wrap_policy", "activation_checkpointing_policy", "dict_kwargs"),
)
"""Arguments of strategies that take any object or function: they could run any code."""
_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def allow_code(path: Path) -> None:
    """Let recipes name classes of a Python file, or of the modules in a folder.

    Otherwise only installed packages and ``PYTHONPATH`` are searched.
    """
    if not path.is_dir() and not (path.is_file() and path.suffix == ".py"):
        raise UserError(f"--mixers {path}: name a Python file, or a folder of them")
    sys.path.append(str((path if path.is_dir() else path.parent).resolve()))


def mixers_in(path: Path) -> list[type[BaseMixer]]:
    """The mixers that a Python file defines, or the modules of a folder; after ``allow_code``."""
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    modules = [_import_module(file.stem, f"--mixers is {str(path)!r}") for file in files]
    mixers = [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, BaseMixer)
        and each.__module__ == module.__name__
    ]
    if not mixers:
        raise UserError(f"--mixers {path}: no mixer is defined there: derive one from BaseMixer")
    return mixers


def check_classes(given: Any, where: str) -> None:
    """Refuse functions, and classes that are no part of a trainer, before anything builds them.

    jsonargparse would build any class, and look up any function, where an argument's type is as
    wide as ``object`` or a callable, and follow a path through the modules that a module imports.
    ``where`` is the file and dotted key of the values.
    """
    if isinstance(given, Mapping):
        for key, value in given.items():
            if key in RUN_CODE:
                raise UserError(f"{where}.{key} is not allowed in a recipe: it could run any code")
            if key == "class_path":
                _check_part(str(value), f"{where}.{key}")
            else:
                check_classes(value, f"{where}.{key}")
    elif isinstance(given, list):
        for index, value in enumerate(given):
            check_classes(value, f"{where}[{index}]")
    elif isinstance(given, str) and _CLASS_PATH.fullmatch(given):
        raise UserError(f"{where}: {given!r}: name a class as {{class_path: {given}}}")


def _check_part(class_path: str, where: str) -> None:
    part = _import(class_path, where)
    if not (isinstance(part, type) and issubclass(part, PARTS)):
        names = ", ".join(base.__name__ for base in PARTS)
        raise UserError(f"{where} is {class_path!r}, not a part of a trainer: name one of {names}")


def _import(class_path: str, where: str) -> Any:
    """Import what a module itself defines or imports under a name.

    The standard library is refused: no run needs it, and some of its modules act when imported.
    """
    module_name, _, name = class_path.rpartition(".")
    where = f"{where} is {class_path!r}"
    if not _CLASS_PATH.fullmatch(class_path):
        raise UserError(f"{where}, an invalid class path: write one such as torch.nn.Linear")
    module = _import_module(module_name, where)
    attribute = getattr(module, name, None)
    if attribute is None:
        raise UserError(f"{where}: {module_name} has no {name!r}{nearest(name, dir(module))}")
    return attribute


def _import_module(name: str, where: str) -> ModuleType:
    """Import a module outside the standard library."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{where}: name a class outside Python's standard library")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{where}, which cannot be imported ({error}): name its file with --mixers, or put its "
            "folder on PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the module's own code raises
        raise UserError(f"{where}, whose module fails: {_told(error, name)}") from error


def _told(error: BaseException, module: str) -> str:
    """Where an error in a module's own code is, and what it says."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {first_line(error)}: correct that line"
    spec = importlib.util.find_spec(module)
    line = line_of(error, {str(spec.origin)} if spec else set())
    at = f"{line.filename}:{line.lineno}: `{line.line}`: " if line else ""
    return f"{at}{first_line(error)}: correct that line"


def import_mixer(class_path: str, origin: str) -> type[BaseMixer]:
    """Import a mixer's class by its path."""
    where = f"{origin}: mixer.class_path"
    mixer = _import(class_path, where)
    if not (isinstance(mixer, type) and issubclass(mixer, BaseMixer)):
        raise UserError(f"{where} is {class_path!r}: name a subclass of dograph.mixers.BaseMixer")
    return mixer


def import_logger(class_path: str, where: str) -> type[Logger]:
    """Import a logger's class by its path; ``where`` is the file and dotted key that name it."""
    logger = _import(class_path, where)
    if not (isinstance(logger, type) and issubclass(logger, Logger)):
        example = "lightning.pytorch.loggers.CSVLogger"
        raise UserError(f"{where} is {class_path!r}, not a logger: name one such as {example}")
    if issubclass(logger, TensorBoardLogger):
        raise UserError(f"{where} is {class_path!r}: every run has a TensorBoard, leave it out")
    return logger
