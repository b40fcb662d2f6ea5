"""What a run was made under, with every default filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.errors import UserError
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.recipe.check import SECTIONS, check_section
from dograph.experiments.recipe.compose import Composition, load_yaml
from dograph.files.run_dir import RECIPE

OF_MODEL = {"model": ("architecture", "config", "pretrained")}
OF_VALIDATION = {"data": ("context", "validation_sequences"), "trainer": ("limit_val_batches",)}
OF_TRAINING = {
    "data": ("batch_size", "draw"),
    "model": ("learning_rate", "final_learning_rate", "warmup", "weight_decay", "betas"),
    "trainer": (
        "max_steps",
        "precision",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "gradient_clip_algorithm",
    ),
}
"""Keys of a recipe's sections that decide the numbers, beside mixture and seed."""
FROM_EARLIER_STAGES = ("weights", "prior", "reference")
"""Arguments of a mixer that an experiment fills in by what it found with a seed."""
Setting = dict[str, Any]


def setting_of(run: ComparedRun) -> Setting:
    """What must be alike for losses to compare, by the names that ``compare --allow`` takes.

    Raises:
        UserError: if the run's recipe is missing or damaged.
    """
    values, facts = recipe_of(run.final), run.facts
    return {
        "tokens": run.summary.tokens,
        "corpus": facts["fingerprint"],
        "tokenizer": facts["tokenizer"],
        "validation": {
            **_chosen(values, OF_VALIDATION, run.final),
            # Runs of before this was recorded: the corpus as a whole.
            "text": facts.get("validation_fingerprint", facts["fingerprint"]),
        },
        "model": _chosen(values, OF_MODEL, run.final),
        "training": {
            **_chosen(values, OF_TRAINING, run.final),
            "processes": facts.get("host", {}).get("processes", 1),
        },
    }


def method_of(run: ComparedRun) -> Setting:
    """What makes a run its method: the mixer of every stage, and how it is sketched."""
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


def recipe_of(folder: Path) -> dict[str, Any]:
    """A run's resolved recipe.

    Raises:
        UserError: if it is missing or damaged.
    """
    values = OmegaConf.to_container(load_yaml(folder / RECIPE))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _chosen(
    values: Mapping[str, Any], keys: Mapping[str, tuple[str, ...]], folder: Path
) -> dict[str, Any]:
    chosen = {}
    for section, wanted in keys.items():
        given = values.get(section) or {}
        if not isinstance(given, Mapping):
            raise UserError(f"{folder / RECIPE}: {section} must be a mapping, got {given!r}")
        try:
            whole = _with_defaults(section, json.dumps(given, sort_keys=True))
        except UserError as error:
            raise UserError(f"{folder / RECIPE}: {error}") from error
        chosen.update({f"{section}.{key}": whole.get(key) for key in wanted})
    return chosen


@lru_cache(maxsize=1024)
def _with_defaults(section: str, given: str) -> dict[str, Any]:
    """A section with every default, in plain types; read once for all runs that share it."""
    composition = Composition({}, [("recipe", OmegaConf.create({}))])
    builds, skip = SECTIONS[section]
    checked = check_section(composition, section, builds, json.loads(given), skip)
    plain: dict[str, Any] = json.loads(json.dumps(checked.as_dict(), default=str))
    return plain
