"""Whether runs may be compared, and what differs where they may not."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dograph.errors import UserError
from dograph.experiments.comparison.runs import ComparedRun, by_method
from dograph.experiments.comparison.settings import method_of, setting_of
from dograph.experiments.recipe.compose import flat, nearest

CONDITIONS = {
    "tokens": "tokens trained on",
    "corpus": "prepared corpus",
    "tokenizer": "tokenizer",
    "validation": "validation set",
    "model": "model",
    "training": "training",
}
"""What must be alike, by the names that ``--allow`` takes."""
HOST: dict[str, Any] = {"commit": None, "versions": {}, "host": {}}
"""What changes no more than rounding and seconds: keys of ``provenance.json``, and if missing."""
MOST_FOLDERS = 4
"""Run folders that a message names for one value."""


def check_comparable(runs: Sequence[ComparedRun], allowed: Collection[str] = ()) -> list[str]:
    """Checks that runs differ in nothing but their mixture and seed.

    Args:
        runs: at least one.
        allowed: conditions that may differ.

    Returns:
        what differs and was allowed, a sentence each.

    Raises:
        UserError: saying what differs, in which runs, and how to compare them anyway; or for
            an unknown condition.
    """
    for name in allowed:
        if name not in CONDITIONS:
            hint = nearest(name, list(CONDITIONS)) or f" (there are: {', '.join(CONDITIONS)})"
            raise UserError(f"--allow {name}: there is no such condition{hint}")
    settings = [setting_of(run) for run in runs]
    differing = {
        name: f"{title}: {text}"
        for name, title in CONDITIONS.items()
        if (text := _difference([setting[name] for setting in settings], runs)) is not None
    }
    refused = [text for name, text in differing.items() if name not in allowed]
    if refused:
        names = ",".join(name for name in differing if name not in allowed)
        raise UserError(
            "these runs are not comparable:\n  "
            + "\n  ".join(refused)
            + f"\nname runs that differ in mixture and seed only, or add --allow {names}"
        )
    return [*differing.values(), *_host_notes(runs)]


def check_methods(runs: Sequence[ComparedRun]) -> None:
    """Checks that runs of one method differ in their seed only.

    Raises:
        UserError: saying what differs, in which runs.
    """
    for method, same in by_method(runs).items():
        text = _difference([method_of(run) for run in same], same)
        if text is not None:
            raise UserError(
                f"the runs of {method} are not of one method: {text}\nname the runs of one method "
                "only, or give the others another name (key `name`)"
            )


def _host_notes(runs: Sequence[ComparedRun]) -> list[str]:
    """What differs and changes no more than rounding and seconds, a sentence each."""
    differences = {
        key: _difference([run.metadata.get(key) or missing for run in runs], runs)
        for key, missing in HOST.items()
    }
    return [f"Runs differ in their {key}: {text}" for key, text in differences.items() if text]


def _difference(values: Sequence[Any], runs: Sequence[ComparedRun]) -> str | None:
    """What runs' values differ in, with the folders of each; None where they agree."""
    groups: dict[str, tuple[Any, list[ComparedRun]]] = {}
    for value, run in zip(values, runs, strict=True):
        key = json.dumps(value, sort_keys=True, default=str)
        groups.setdefault(key, (value, []))[1].append(run)
    if len(groups) < 2:
        return None
    others = [value for value, _ in groups.values()]
    return "; ".join(
        f"{_shown(value, others)} in {_named(group)}" for value, group in groups.values()
    )


def _shown(value: Any, others: Sequence[Any]) -> str:
    """A value; of nested values, the keys in which it differs."""
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, Mapping):
        return str(value)
    all_flat = [flat(other) for other in others]
    keys = dict.fromkeys(key for entry in all_flat for key in entry)
    differing = [key for key in keys if len({repr(entry.get(key)) for entry in all_flat}) > 1]
    own = flat(value)
    return ", ".join(f"{key} {own.get(key, 'not set')}" for key in differing)


def _named(runs: Sequence[ComparedRun]) -> str:
    shown = ", ".join(str(run.folder) for run in runs[:MOST_FOLDERS])
    more = len(runs) - MOST_FOLDERS
    return f"{shown} and {more} more" if more > 0 else shown
