"""Whether runs may be compared: their settings with every default, and what differs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.errors import UserError, nearest
from dograph.experiments.comparison.runs import ComparedRun, by_method, recipe_of
from dograph.experiments.recipe.check import SECTIONS
from dograph.experiments.recipe.compose import Composition, flat
from dograph.experiments.recipe.section import check_section
from dograph.files.run_dir import RECIPE

CONDITIONS = {
    "target": "target",
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
OF_MODEL = {"model": ("architecture", "config", "pretrained")}
OF_VALIDATION = {"data": ("context", "validation_sequences"), "trainer": ("limit_val_batches",)}
_CLIPPING = ("gradient_clip_val", "gradient_clip_algorithm")
OF_TRAINING = {
    "data": ("batch_size", "draw", "unseen", "cap"),
    "model": ("learning_rate", "final_learning_rate", "warmup", "weight_decay", "betas"),
    "trainer": ("max_steps", "precision", "accumulate_grad_batches", *_CLIPPING),
}
"""Keys of a recipe's sections that decide the numbers, beside mixture and seed."""
FROM_EARLIER_STAGES = ("weights", "prior", "reference")
"""Arguments of a mixer that an experiment fills in from its earlier stages, seed by seed."""


def check_comparable(runs: Sequence[ComparedRun], allowed: Collection[str] = ()) -> list[str]:
    """Checks that runs differ in nothing but mixture, seed and the ``allowed`` conditions.

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
    if refused := [name for name in differing if name not in allowed]:
        raise UserError(
            "\n  ".join(["these runs are not comparable:", *(differing[name] for name in refused)])
            + "\nname runs that differ in mixture and seed only, or add --allow "
            + ",".join(refused)
        )
    return [*differing.values(), *_host_notes(runs)]


def check_methods(runs: Sequence[ComparedRun]) -> None:
    """Checks that runs of one method differ in their seed only."""
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


def setting_of(run: ComparedRun) -> dict[str, Any]:
    """What must be alike for losses to compare, by the names that ``compare --allow`` takes."""
    metadata, source = run.metadata, run.final / RECIPE
    return {
        "target": run.target.description,
        "tokens": run.summary.tokens,
        "corpus": metadata["fingerprint"],
        "tokenizer": metadata["tokenizer"],
        "validation": {
            **_chosen(run.recipe, OF_VALIDATION, source),
            # Older runs did not record it: then the corpus as a whole.
            "text": metadata.get("validation_fingerprint", metadata["fingerprint"]),
        },
        "model": _chosen(run.recipe, OF_MODEL, source),
        "training": {
            **_chosen(run.recipe, OF_TRAINING, source),
            "processes": metadata.get("host", {}).get("processes", 1),
        },
    }


def method_of(run: ComparedRun) -> dict[str, Any]:
    """What makes a run its method: mixer and sketch of every stage."""
    method = {}
    for name, folder in run.stages:
        values = recipe_of(folder)
        mixer = dict(values.get("mixer") or {})
        arguments = dict(mixer.get("init_args") or {})
        if name:
            arguments = {k: v for k, v in arguments.items() if k not in FROM_EARLIER_STAGES}
        method[name or "run"] = {
            "mixer": {"class_path": mixer.get("class_path"), "init_args": arguments},
            "sketch": dict(values.get("sketch") or {}),
        }
    return method


def _chosen(
    values: Mapping[str, Any], keys: Mapping[str, tuple[str, ...]], source: Path
) -> dict[str, Any]:
    chosen = {}
    for section, wanted in keys.items():
        given = values.get(section) or {}
        if not isinstance(given, Mapping):
            raise UserError(f"{source}: {section} must be a mapping, got {given!r}")
        try:
            whole = _with_defaults(section, json.dumps(given, sort_keys=True))
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        chosen.update({f"{section}.{key}": whole.get(key) for key in wanted})
    return chosen


@lru_cache(maxsize=1024)
def _with_defaults(section: str, given: str) -> dict[str, Any]:
    """A section with every default, in plain types; read once for all runs that share it."""
    composition = Composition({}, [("recipe", OmegaConf.create({}))])
    builds, skip = SECTIONS[section]
    checked = check_section(composition, section, builds, json.loads(given), skip)
    return json.loads(json.dumps(checked.as_dict(), default=str))
