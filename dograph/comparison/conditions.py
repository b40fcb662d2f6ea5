"""Whether runs may be compared, and what differs where they may not."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dograph.comparison.runs import ComparedRun
from dograph.composition import nearest
from dograph.errors import UserError

CONDITIONS = {
    "tokens": "tokens trained on",
    "corpus": "prepared corpus",
    "tokenizer": "tokenizer",
    "validation": "validation set",
    "model": "model",
}
"""What must be alike, by the names that ``--allow`` takes."""
LONGEST = 4
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
    differing = {name: text for name in CONDITIONS if (text := _difference(name, runs)) is not None}
    refused = [text for name, text in differing.items() if name not in allowed]
    if refused:
        names = ",".join(name for name in differing if name not in allowed)
        raise UserError(
            "these runs are not comparable:\n  "
            + "\n  ".join(refused)
            + f"\nname runs that differ in mixture and seed only, or add --allow {names}"
        )
    return list(differing.values())


def _difference(name: str, runs: Sequence[ComparedRun]) -> str | None:
    """What runs differ in, with the folders of each value; None where they agree."""
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        value = run.setting[name]
        groups.setdefault(json.dumps(value, sort_keys=True, default=str), []).append(run)
    if len(groups) < 2:
        return None
    values = [run[0].setting[name] for run in groups.values()]
    shown = (
        f"{_shown(value, values)} in {_named(group)}"
        for value, group in zip(values, groups.values(), strict=True)
    )
    return f"{CONDITIONS[name]}: {'; '.join(shown)}"


def _shown(value: Any, others: Sequence[Any]) -> str:
    """A value; of nested values, the keys in which it differs."""
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, Mapping):
        return str(value)
    flat = [_flat(other) for other in others]
    keys = dict.fromkeys(key for entry in flat for key in entry)
    differing = [key for key in keys if len({repr(entry.get(key)) for entry in flat}) > 1]
    own = _flat(value)
    return ", ".join(f"{key} {own.get(key, 'not set')}" for key in differing)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _named(runs: Sequence[ComparedRun]) -> str:
    shown = ", ".join(str(run.folder) for run in runs[:LONGEST])
    more = len(runs) - LONGEST
    return f"{shown} and {more} more" if more > 0 else shown
