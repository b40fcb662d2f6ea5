"""Limits on a recipe's size: aliases and interpolations of YAML can double it line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dograph.errors import UserError
from dograph.files.bounded_yaml import MOST_VALUES

DEEPEST = 50
"""Maximum chain of interpolations that refer to one another."""
Key = tuple[str, ...]
_WORD = re.compile(r"[^\s${}:,'\"]+")
_REFUSED = re.compile(r"\boc\.(?!env\b)\w+|\$\{[^{}:]*(\$\{|\[)")


def check_interpolations(config: DictConfig, path: Path) -> None:
    """Check that resolving a configuration's ``${...}`` ends, and stays small.

    Names are taken literally: those made of other interpolations, brackets, and resolvers that
    read further text (``oc.create``, ``oc.decode``, ``oc.select``) are refused.
    """
    unresolved = leaves(OmegaConf.to_container(config, resolve=False))
    texts = {key: value if isinstance(value, str) else "" for key, value in unresolved}
    below: dict[str, list[Key]] = {}
    for key, text in texts.items():
        refused = _REFUSED.search(text) if "${" in text else None
        if refused:
            raise UserError(
                f"{path}: {'.'.join(key)} has {refused.group()!r}, which is not allowed in a "
                "recipe: an interpolation names a key, as in ${model.learning_rate}, or the "
                "environment, as in ${oc.env:HOME}"
            )
        for length in range(1, len(key) + 1):
            below.setdefault(".".join(key[:length]), []).append(key)
    if all("${" not in text for text in texts.values()):
        return
    sizes, total = _Sizes(path, texts, below), 0
    for key in texts:
        total += sizes.of(key, ())
        if total > MOST_VALUES:
            raise UserError(f"{path}: {'.'.join(key)} expands to more than {MOST_VALUES} values")


def leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Values of nested mappings and lists, each with the keys and indices that lead to it."""
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, inner in items:
            yield from leaves(inner, (*key, str(name)))
    else:
        yield key, value


@dataclass
class _Sizes:
    """Upper bounds on what keys expand to, in values of the size of a word."""

    path: Path
    texts: dict[Key, str]
    """text of every key that does not hold a mapping or list."""
    below: dict[str, list[Key]]
    """such keys by every dotted name that they lie at or below."""
    known: dict[Key, int] = field(default_factory=dict)

    def of(self, key: Key, above: tuple[Key, ...]) -> int:
        """Bound the size of a key that the keys ``above`` refer to."""
        if key in above or len(above) > DEEPEST:
            names = " -> ".join(".".join(each) for each in (*above, key)[-4:])
            raise UserError(
                f"{self.path}: an interpolation refers to itself, or through more than {DEEPEST} "
                f"others: {names}"
            )
        if key not in self.known:
            text = self.texts[key]
            total = 1 + len(text) // 100
            for name in _names(key, text):
                for other in self.below.get(name, ()):
                    total = min(total + self.of(other, (*above, key)), 2 * MOST_VALUES)
            self.known[key] = total
        return self.known[key]


def _names(key: Key, text: str) -> list[str]:
    """Words inside ``${...}``, each of which might be a key; relative ones made absolute."""
    if "${" not in text:
        return []
    names = []
    for word in _WORD.findall(text[text.index("${") :]):
        name = word.lstrip(".")
        dots = len(word) - len(name)
        base = key[:-dots] if dots else ()
        names.append(".".join([*base, *([name] if name else [])]))
    return names
