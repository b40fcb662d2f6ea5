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
from dograph.files.atomic import read_json, write_json, write_text
from dograph.files.checksums import file_digest, json_digest
from dograph.files.run_dir import PROVENANCE, RECIPE

REQUIRED = {"seed": int, "fingerprint": str, "tokenizer": str, "corpus": str}
"""Keys that every run's provenance has, with their types."""
PACKAGES = (
    *("dograph", "lightning", "torch", "transformers", "litdata"),
    *("piqp", "cvxpylayers", "numpy"),
)
WITHOUT_EFFECT = ("name", "runs", "report")
"""Keys of a recipe that change no number a later stage or a comparison reads."""


class Provenance(Callback):
    """Writes the resolved recipe and where everything came from when training begins.

    A resumed run keeps what it began with. Resumed under another recipe, it loses its digest, since
    it is a run of neither recipe, and records the other recipe.
    """

    def __init__(self, folder: Path, recipe: Recipe, store: Store) -> None:
        self.folder, self.recipe, self.store = folder, recipe, store

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``recipe.yaml`` and ``provenance.json``, unless the run is resumed."""
        if not trainer.is_global_zero:
            return
        if (self.folder / PROVENANCE).exists() and trainer.ckpt_path:
            self._note_changes()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / RECIPE, self.recipe.as_yaml())
        write_json(self.folder / PROVENANCE, self.content(trainer))

    def _note_changes(self) -> None:
        before = read_provenance(self.folder)
        if before.get("digest") != self._digest():
            before["gone_on_with"] = [*before.get("gone_on_with", []), self.recipe.as_yaml()]
            write_json(self.folder / PROVENANCE, {**before, "digest": None})

    def content(self, trainer: Trainer) -> dict[str, Any]:
        """Seed, corpus, tokenizer, commit, versions, host, and a digest of the run's inputs."""
        return {
            "seed": self.recipe.seed,
            "corpus": str(self.store.path),
            "fingerprint": self.store.fingerprint,
            "validation_fingerprint": self.store.fingerprint_of("validation"),
            "tokenizer": self.store.tokenizer_hash,
            "digest": self._digest(),
            "commit": own_commit(),
            "versions": {name: version_of(name) for name in PACKAGES},
            "host": {**host_metadata(), "processes": trainer.world_size},
        }

    def _digest(self) -> str:
        return json_digest(run_inputs(self.recipe.composition.values, self.store))


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read what ``Provenance`` wrote in a run's folder."""
    path = folder / PROVENANCE
    try:
        content = read_json(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if content is None:
        raise UserError(f"{path} is missing: name the folder of a run")
    for key, kind in {**REQUIRED, "versions": dict, "host": dict}.items():
        if not isinstance(content, dict) or (key in REQUIRED and key not in content):
            raise UserError(f"{path} is damaged: it says no {key}")
        if not isinstance(content.get(key, {}), kind):
            raise UserError(f"{path} is damaged: {key} is not of type {kind.__name__}")
    return dict(content)


def run_inputs(values: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """All that decides a run's numbers, of a resolved recipe's values and a prepared corpus.

    Equal inputs give equal losses on one host.
    """
    code = mixer_code_digest(str((values.get("mixer") or {}).get("class_path", "")))
    return {
        "values": {key: value for key, value in values.items() if key not in WITHOUT_EFFECT},
        "corpus": store.fingerprint,
        "dograph": version_of("dograph"),
        **({"mixer code": code} if code else {}),
    }


def mixer_code_digest(class_path: str) -> str | None:
    """Digest of the file that defines a user's own mixer; None for a mixer of this package.

    A change of that file makes another run; changes of this package show in its version.
    """
    module = class_path.rpartition(".")[0]
    own = not module or module.split(".")[0] == "dograph"
    spec = None if own else importlib.util.find_spec(module)
    file = Path(spec.origin) if spec and spec.origin else None
    return file_digest(file) if file and file.is_file() else None


def host_metadata() -> dict[str, Any]:
    """The machine, as far as it decides speed and rounding."""
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(index) for index in devices],
    }


def processor() -> str:
    """The processor's model by the system's name for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def version_of(distribution: str) -> str | None:
    """A distribution's installed version; None if it runs from its source folder."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def own_commit() -> str | None:
    """The commit of this package's checkout, and "+changes" if files differ; None without one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    return f"{commit}+changes" if commit and changed else commit or None


def _git(root: Path, *words: str) -> str:
    command = ["git", *words]
    try:
        answer = subprocess.run(
            command, cwd=root, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError:  # git is not installed
        return ""
    return answer.stdout.strip()
