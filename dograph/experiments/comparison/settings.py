"""The settings of a run, with every default filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dograph.errors import UserError
from dograph.experiments.comparison.runs import ComparedRun, recipe_of
from dograph.experiments.recipe.check import SECTIONS
from dograph.experiments.recipe.compose import Composition
from dograph.experiments.recipe.section import check_section
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
"""Arguments of a mixer that an experiment fills in from its earlier stages, seed by seed."""
Setting = dict[str, Any]


def setting_of(run: ComparedRun) -> Setting:
    """What must be alike for losses to compare, by the names that ``compare --allow`` takes.

    Raises:
        UserError: if the run's recipe is missing or damaged.
    """
    metadata, source = run.metadata, run.final / RECIPE
    return {
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


def method_of(run: ComparedRun) -> Setting:
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
    plain: dict[str, Any] = json.loads(json.dumps(checked.as_dict(), default=str))
    return plain
