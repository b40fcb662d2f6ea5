"""Print how the package's entries import one another: `python -m benchmarks.imports`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent


def imported(path: Path, package: str) -> Iterator[tuple[str, ...]]:
    """Yield the modules of a package that a file imports anywhere, as names below the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith(f"{package}."):
                yield tuple(name.removeprefix(f"{package}.").split("."))


def arrows(package: str = "dograph") -> dict[tuple[str, str], int]:
    """Count imports between different entries of a package, by (importing, imported)."""
    pairs: dict[tuple[str, str], int] = {}
    folder = ROOT / package.replace(".", "/")
    entries = {path.stem for path in folder.iterdir()}
    for path in sorted(folder.rglob("*.py")):
        entry = path.relative_to(folder).parts[0].removesuffix(".py")
        for names in imported(path, package):
            pair = (entry, names[0])
            if entry != "__init__" and names[0] != entry and names[0] in entries:
                pairs[pair] = pairs.get(pair, 0) + 1
    return pairs


def levels(pairs: Iterator[tuple[str, str]] | dict[tuple[str, str], int]) -> dict[str, int]:
    """Return each entry's level: 0 if it imports no other, else one above the highest it imports.

    Raises:
        graphlib.CycleError: entries import one another in a circle.
    """
    below: dict[str, set[str]] = {}
    for importing, name in pairs:
        below.setdefault(importing, set()).add(name)
    level: dict[str, int] = {}
    for entry in TopologicalSorter(below).static_order():
        level[entry] = 1 + max((level[name] for name in below.get(entry, ())), default=-1)
    return level


def main() -> None:
    """Print levels and arrows of the package and of the benchmarks."""
    for package in ("dograph", "benchmarks", "benchmarks.gpu", "benchmarks.scale"):
        pairs = arrows(package)
        by_entry = levels(pairs)
        print(f"{package}: {max(by_entry.values()) + 1} levels, {len(pairs)} arrows")
        for entry, level in sorted(by_entry.items(), key=lambda item: (item[1], item[0])):
            names = sorted(name for importing, name in pairs if importing == entry)
            print(f"  {level:2d} {entry:14s} {' '.join(names)}")


if __name__ == "__main__":
    main()
