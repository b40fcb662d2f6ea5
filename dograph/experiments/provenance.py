"""Where a run came from: its recipe, versions, corpus, commit and host."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.recipe.check import Recipe
from dograph.files.atomic import read_json, write_json
from dograph.files.checksums import facts_digest, file_digest
from dograph.files.run_dir import PROVENANCE, RECIPE

NEEDED = {"seed": int, "fingerprint": str, "tokenizer": str, "corpus": str}
"""What every run's facts say."""
VERSIONS_OF = (
    *("dograph", "lightning", "torch", "transformers", "litdata"),
    *("piqp", "cvxpylayers", "numpy"),
)
WITHOUT_EFFECT = ("name", "runs", "report")
"""Sections of a recipe that change nothing a later stage or a comparison could notice."""


class Provenance(Callback):
    """Writes the resolved recipe and where everything came from, as training begins.

    A run that is gone on with keeps what it began with; under another recipe it has no digest any
    more, is no run of either recipe, and says what has changed.

    Args:
        folder: of the run.
        recipe: checked.
        store: the prepared corpus.
    """

    def __init__(self, folder: Path, recipe: Recipe, store: Store) -> None:
        self.folder, self.recipe, self.store = folder, recipe, store

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes ``recipe.yaml`` and ``provenance.json``, unless the run goes on."""
        if not trainer.is_global_zero:
            return
        if (self.folder / PROVENANCE).exists() and trainer.ckpt_path:
            self._note_changes()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RECIPE).write_text(self.recipe.as_yaml())
        write_json(self.folder / PROVENANCE, self.facts(trainer))

    def _note_changes(self) -> None:
        before = read_facts(self.folder)
        if before.get("digest") != self._digest():
            changes = [*before.get("gone_on_with", []), self.recipe.as_yaml()]
            write_json(
                self.folder / PROVENANCE, {**before, "digest": None, "gone_on_with": changes}
            )

    def facts(self, trainer: Trainer) -> dict[str, Any]:
        """Seed, corpus, tokenizer, commit, versions, host, and a digest of what decides the run."""
        return {
            "seed": self.recipe.seed,
            "corpus": str(self.store.path),
            "fingerprint": self.store.fingerprint,
            "validation_fingerprint": self.store.fingerprint_of("validation"),
            "tokenizer": self.store.tokenizer_hash,
            "digest": self._digest(),
            "commit": own_commit(),
            "versions": {name: version_of(name) for name in VERSIONS_OF},
            "host": {**host_facts(), "processes": trainer.world_size},
        }

    def _digest(self) -> str:
        return facts_digest(run_inputs(self.recipe.composition.values, self.store))


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``Provenance`` wrote in a run's folder.

    Raises:
        UserError: if there is nothing, or it is damaged.
    """
    try:
        facts = read_json(folder / PROVENANCE)
    except (ValueError, OSError) as error:
        raise UserError(f"{folder / PROVENANCE} is damaged: {error}") from error
    if facts is None:
        raise UserError(f"{folder / PROVENANCE} is missing: {folder} is no folder of a run")
    for key, kind in NEEDED.items():
        if not isinstance(facts, dict) or not isinstance(facts.get(key), kind):
            raise UserError(f"{folder / PROVENANCE} is damaged: it says no {key}")
    for key in ("versions", "host"):
        if not isinstance(facts.get(key, {}), dict):
            raise UserError(f"{folder / PROVENANCE} is damaged: {key} is no mapping")
    return dict(facts)


def run_inputs(values: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """What decides a run's numbers: equal inputs, equal losses (on one host).

    Args:
        values: of the recipe, resolved.
        store: the prepared corpus.
    """
    code = code_of(str((values.get("mixer") or {}).get("class_path", "")))
    return {
        "values": {key: value for key, value in values.items() if key not in WITHOUT_EFFECT},
        "corpus": store.fingerprint,
        "dograph": version_of("dograph"),
        **({"mixer code": code} if code else {}),
    }


def code_of(class_path: str) -> str | None:
    """Digest of the file that a mixer of one's own is in; None for the package's own.

    A change of that file makes another run; the package's own changes are told by its version.
    """
    module = class_path.rpartition(".")[0]
    if not module or module.split(".")[0] == "dograph":
        return None
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return None
    return file_digest(Path(found.origin))


def host_facts() -> dict[str, Any]:
    """The machine, as far as it decides speed and rounding."""
    cuda = torch.cuda.is_available()
    return {
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else [],
    }


def processor() -> str:
    """The processor's model, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def version_of(distribution: str) -> str | None:
    """The installed version; None for a package that runs from its source folder."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def own_commit() -> str | None:
    """The commit of this package's own checkout; None where it is installed, or without git.

    Ends in "+changes" where files differ from it.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    return f"{commit}+changes" if commit and changed else commit or None


def _git(root: Path, *words: str) -> str:
    try:
        answer = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return answer.stdout.strip()
