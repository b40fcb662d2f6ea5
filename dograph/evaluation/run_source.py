"""The run that a checkpoint came from: its folder, corpus and data settings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dograph.data.corpus.store import find_store
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.files.atomic import read_json
from dograph.files.bounded_yaml import load_bounded
from dograph.files.changes import midway_changes
from dograph.files.run_dir import CHECKPOINTS, FINAL_CHECKPOINT, PROVENANCE, RECIPE, SUMMARY
from dograph.mixers.target import Target

DATA_DEFAULTS: dict[str, int] = {
    key: inspect.signature(DataMixer).parameters[key].default
    for key in ("context", "validation_sequences", "batch_size")
}


@dataclass(frozen=True)
class RunSource:
    """The run behind a checkpoint.

    Attributes:
        folder: the run directory.
        corpus: path of its store; one of its fingerprint in the cache, if the recorded is gone.
        fingerprint: of that store as the run saw it.
        tokenizer: hash of its tokenizer.
        data: context, validation_sequences and batch_size of its recipe.
        target: what the run was to lower, by its recipe.
        changed: what was changed while the run was trained; None for a run of one recipe.
    """

    folder: Path
    corpus: Path
    fingerprint: str
    tokenizer: str
    data: dict[str, int]
    target: Target
    changed: str | None = None


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path names: the file itself, or the final one of a run directory.

    An experiment with stages has that of its last stage, which its ``summary.json`` names.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder: name a run's folder or a .ckpt file")
    if (path / FINAL_CHECKPOINT).is_file():
        return path / FINAL_CHECKPOINT
    try:
        last = (read_json(path / SUMMARY) or {}).get("folder")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path / SUMMARY} is damaged: name a stage's folder") from error
    if last and (path / str(last) / FINAL_CHECKPOINT).is_file():
        return path / str(last) / FINAL_CHECKPOINT
    if stages := sorted(str(file.parent.parent) for file in path.glob(f"*/{FINAL_CHECKPOINT}")):
        raise UserError(
            f"{path} holds several runs: name the folder of one of them: {', '.join(stages)}"
        )
    others = ", ".join(sorted(map(str, (path / CHECKPOINTS).glob("*.ckpt"))))
    hint = f", or name one of {others}" if others else ""
    raise UserError(f"{path} has no {FINAL_CHECKPOINT}: name the folder of a finished run{hint}")


def find_run_source(checkpoint: Path) -> RunSource | None:
    """Reads a checkpoint's run from the files beside it or one folder up; None without them."""
    folders = (checkpoint.parent, checkpoint.resolve().parent.parent)
    folder = next((folder for folder in folders if (folder / PROVENANCE).is_file()), None)
    if folder is None:
        return None
    try:
        metadata = read_json(folder / PROVENANCE)
        recorded = Path(metadata["corpus"])
        return RunSource(
            folder=folder,
            corpus=find_store(recorded, str(metadata["fingerprint"])) or recorded,
            fingerprint=str(metadata["fingerprint"]),
            tokenizer=str(metadata["tokenizer"]),
            changed=midway_changes(folder, metadata),
            **_recipe_settings(folder / RECIPE),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / PROVENANCE} is damaged or of an earlier version ({error!r}): move the "
            "checkpoint elsewhere and name its corpus with --corpus STORE"
        ) from error


def _recipe_settings(recipe: Path) -> dict[str, Any]:
    """The recipe's target, and numbers of its ``data``, by default DataMixer's."""
    try:
        values = OmegaConf.to_container(load_bounded(recipe), resolve=True)
        assert isinstance(values, dict)
        given = values.get("data") or {}
        numbers = {key: int(given.get(key, value)) for key, value in DATA_DEFAULTS.items()}
        if min(numbers.values()) < 1:
            raise ValueError(f"data has numbers below 1: {numbers}")
        target = Target.parse(values.get("target"), given.get("unseen") or ())
        return {"data": numbers, "target": target}
    except FileNotFoundError:
        raise UserError(
            f"{recipe} is missing: it says how the run read its corpus: copy it beside {PROVENANCE}"
        ) from None
    except (yaml.YAMLError, OmegaConfBaseException, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{recipe} is damaged: {error}") from error
