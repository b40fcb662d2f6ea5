"""Prints how the package's entries import one another: `python -m benchmarks.imports`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent


def imported(path: Path, package: str) -> Iterator[tuple[str, ...]]:
    """Modules of a package that a file imports, wherever in the file, as names below it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith(f"{package}."):
                yield tuple(name.split(".")[1:])


def arrows(package: str = "dograph") -> dict[tuple[str, str], int]:
    """Imports between different entries of a package: (importing, imported) to their number."""
    found: dict[tuple[str, str], int] = {}
    folder = ROOT / package
    entries = {path.stem for path in folder.iterdir()}
    for path in sorted(folder.rglob("*.py")):
        entry = path.relative_to(folder).parts[0].removesuffix(".py")
        for names in imported(path, package):
            pair = (entry, names[0])
            if entry != "__init__" and names[0] != entry and names[0] in entries:
                found[pair] = found.get(pair, 0) + 1
    return found


def levels(pairs: Iterator[tuple[str, str]] | dict[tuple[str, str], int]) -> dict[str, int]:
    """Each entry's level: 0 imports no other, else one above the highest that it imports.

    Raises:
        graphlib.CycleError: where entries import one another in a circle.
    """
    below: dict[str, set[str]] = {}
    for importing, name in pairs:
        below.setdefault(importing, set()).add(name)
    found: dict[str, int] = {}
    for entry in TopologicalSorter(below).static_order():
        found[entry] = 1 + max((found[name] for name in below.get(entry, ())), default=-1)
    return found


def main() -> None:
    """Prints levels and arrows of the package and of the benchmarks."""
    for package in ("dograph", "benchmarks"):
        pairs = arrows(package)
        found = levels(pairs)
        print(f"{package}: {max(found.values()) + 1} levels, {len(pairs)} arrows")
        for entry, level in sorted(found.items(), key=lambda item: (item[1], item[0])):
            names = sorted(name for importing, name in pairs if importing == entry)
            print(f"  {level:2d} {entry:14s} {' '.join(names)}")


if __name__ == "__main__":
    main()
