"""The recipes that come with the package, found by name from any folder."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from dograph.errors import UserError, nearest

PACKAGE = Path(__file__).parents[2]


def shipped_recipes() -> dict[str, Path]:
    """Paths by name, sorted: those of the installed package, or of the clone that it runs from."""
    folders = (PACKAGE / "recipes", PACKAGE.parent / "recipes")
    folder = next((each for each in folders if each.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(given: Path) -> Path:
    """The file that a word of the command line means: a path, or the name of a shipped recipe.

    A file in the working folder has precedence over a shipped recipe of its name, which is then
    said on stderr.

    Raises:
        UserError: if there is neither, with the closest names.
    """
    shipped, is_name = shipped_recipes(), given.name == str(given)
    own = [given.with_name(f"{given.name}.yaml")] if is_name and given.name else []
    file = next((each for each in [given, *own] if _is_file(each)), None)
    if file is not None:
        if is_name and given.suffix != ".yaml" and file.stem in shipped:
            _tell_once(f"{given}: using {file} of this folder, not the shipped recipe")
        return file
    if is_name and given.name.removesuffix(".yaml") in shipped:
        return shipped[given.name.removesuffix(".yaml")]
    if given.exists():  # a folder, which the reader refuses
        return given
    if given.stem in shipped:
        raise UserError(f"{given}: no such file; the shipped recipe is named {given.stem}")
    if not is_name:
        raise UserError(f"{given}: no such file")
    hint = nearest(given.stem, list(shipped)) or f" (there are: {', '.join(shipped)})"
    raise UserError(f"{given}: no such file, and no shipped recipe of that name{hint}")


def _is_file(path: Path) -> bool:
    """Whether something can be read there, such as a file or a pipe."""
    return path.exists() and not path.is_dir()


@cache
def _tell_once(text: str) -> None:
    """Print to stderr, unless this process has: a sweep reads a recipe for every seed."""
    print(text, file=sys.stderr)
