"""In what nested settings differ, and what changed in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dograph.errors import UserError
from dograph.files.bounded_yaml import load_bounded, parse_bounded
from dograph.files.run_dir import PROVENANCE, RECIPE

Changes = Mapping[str, tuple[Any, Any]]
"""Old and new value of dotted keys; None where one is not set."""
LONGEST_VALUE = 60
"""Characters of a value in a message."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted keys."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flattened.update(flat(value, f"{prefix}{key}."))
        else:
            flattened[f"{prefix}{key}"] = value
    return flattened


def key_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """The keys in which two mappings of dotted keys differ."""
    pairs = {key: (before.get(key), now.get(key)) for key in dict.fromkeys([*before, *now])}
    return {
        key: (was, is_now)
        for key, (was, is_now) in pairs.items()
        if was != is_now or isinstance(was, bool) is not isinstance(is_now, bool)
    }


def described(changes: Changes) -> str:
    """Changed keys with both values, for a message."""
    shown = [f"{key} ({_shown(was)} → {_shown(now)})" for key, (was, now) in changes.items()]
    return ", ".join(shown)


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def recipe_text(text: str, where: str) -> dict[str, Any]:
    """The values of a resolved recipe that another file holds as text.

    Raises:
        UserError: naming ``where``, if it is none.
    """
    try:
        values = OmegaConf.to_container(parse_bounded(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{where} is damaged: it is not a recipe")
    return {str(key): value for key, value in values.items()}


def midway_changes(folder: Path, provenance: Mapping[str, Any]) -> str | None:
    """What changed while the run in a folder was trained, as text; None for a run of one recipe.

    Args:
        folder: the run directory.
        provenance: content of its ``provenance.json``.

    Raises:
        UserError: if the record of it is damaged.
    """
    where = folder / PROVENANCE
    resumes = provenance.get("resumed")
    if isinstance(resumes, list) and resumes:
        try:
            return "; ".join(
                f"at step {int(each['step'])} {described(each['changed'])}" for each in resumes
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where} is damaged: resumed is {resumes!r}") from error
    later = provenance.get("gone_on_with")
    if not isinstance(later, list) or not later:
        return None
    keys = list(dict.fromkeys(_earlier_changes(folder, [str(text) for text in later], where)))
    return ", ".join(keys) or "the code of its mixer, or the version of dograph"


def _earlier_changes(folder: Path, later: list[str], where: Path) -> Iterator[str]:
    """Keys that differ between successive recipes of a run that recorded no more than these."""
    try:
        before = flat(OmegaConf.to_container(load_bounded(folder / RECIPE)))  # type: ignore[arg-type]
    except (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError, AttributeError) as error:
        raise UserError(f"{folder / RECIPE} is missing or damaged: {error}") from error
    for text in later:
        now = flat(recipe_text(text, f"{where}: gone_on_with"))
        yield from key_changes(before, now)
        before = now
