"""Classes that a recipe names: importable ones of the expected base type, and nothing else."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dograph.composition import nearest
from dograph.errors import UserError
from dograph.mixers.base import BaseMixer

_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def allow_code(path: Path) -> None:
    """Lets recipes name classes of a file, or of the modules in a folder.

    Without it they are found among installed packages and on ``PYTHONPATH`` only. Processes that
    this one starts may, too.

    Raises:
        UserError: if there is no such Python file or folder.
    """
    if not path.is_dir() and not (path.is_file() and path.suffix == ".py"):
        raise UserError(f"--mixers {path}: name a Python file, or a folder of them")
    folder = str((path if path.is_dir() else path.parent).resolve())
    sys.path.append(folder)
    search = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*([search] if search else []), folder])


def check_class_paths(given: Any, where: str) -> None:
    """Refuses class paths that no recipe needs before anything imports them.

    Importing runs a module's code; Python's own modules hold no class that a recipe may build, but
    some of them act as they are imported.

    Args:
        given: values of a section that may hold class paths.
        where: they stand.

    Raises:
        UserError: for a class of the standard library.
    """
    for text in _texts(given):
        if _CLASS_PATH.fullmatch(text) and text.split(".")[0] in sys.stdlib_module_names:
            raise UserError(f"{where}: {text!r} is of Python's standard library: no part of a run")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def import_mixer(class_path: str, origin: str) -> type[BaseMixer]:
    """The mixer class at an import path.

    Raises:
        UserError: if there is none, or it is no subclass of BaseMixer.
    """
    module_name, _, class_name = class_path.rpartition(".")
    where = f"{origin}: mixer.class_path {class_path!r}"
    if not _CLASS_PATH.fullmatch(class_path):
        raise UserError(f"{where} is no path of a class, such as dograph.mixers.Stratified")
    check_class_paths(class_path, f"{origin}: mixer.class_path")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"{where} cannot be imported ({error}); name its file with --mixers, or put its "
            "folder on PYTHONPATH"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise UserError(f"{where} names nothing{nearest(class_name, dir(module))}")
    if not (isinstance(found, type) and issubclass(found, BaseMixer)):
        raise UserError(f"{where} is no subclass of dograph.mixers.BaseMixer")
    return found
