"""Digests of the files that define a user's own mixer: a change of its code is another method."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dograph.files.checksums import file_digest

INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages, of which only the mixer's own package is followed."""


def mixer_code(values: Mapping[str, Any]) -> dict[str, str]:
    """Digests by path of the files behind a recipe's mixer, and of what they import beside them.

    Paths start at the folder that Python imports the mixer from. This package's own mixers have
    none: its commit and version stand for their code.
    """
    files: dict[str, str] = {}
    for module in _modules(values.get("mixer")):
        file = _file_of(module)
        if file is None or module.split(".")[0] == "dograph":
            continue
        levels = module.count(".") + (file.name == "__init__.py")
        root = file.parents[levels]
        for path in _reached(root, module):
            files[path.relative_to(root).as_posix()] = file_digest(path)
    return dict(sorted(files.items()))


def _modules(given: Any) -> Iterator[str]:
    """Modules of every class that a mixer's section names, at any depth."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            if key == "class_path":
                yield str(value).rpartition(".")[0]
            else:
                yield from _modules(value)
    elif isinstance(given, list):
        for each in given:
            yield from _modules(each)


def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):
        return None
    file = Path(spec.origin) if spec and spec.origin else None
    return file if file and file.is_file() and file.suffix == ".py" else None


def _reached(root: Path, module: str) -> list[Path]:
    """Files below ``root`` that a module consists of and imports, however indirectly."""
    top = module.split(".", maxsplit=1)[0] if root.name in INSTALLED else None
    reached: dict[Path, None] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name.split(".")[0] == "dograph" or (top and name.split(".")[0] != top):
            continue
        for path in _files_of(root, name):
            if path not in reached:
                reached[path] = None
                waiting += _imports(path, root)
    return list(reached)


def _files_of(root: Path, module: str) -> Iterator[Path]:
    """The file of a module below ``root`` and of the packages above it; none if elsewhere."""
    folder = root
    for part in module.split("."):
        for path in (folder / f"{part}.py", folder / part / "__init__.py"):
            if path.is_file():
                yield path
        folder /= part


def _imports(path: Path, root: Path) -> Iterator[str]:
    """Absolute names of what a file imports, anywhere in it; names imported may be modules."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # the import itself reports it
        return
    package = path.parent.relative_to(root).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
