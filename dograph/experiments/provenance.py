"""Where a run came from: its recipe, versions, corpus, commit and host."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from dograph.data.corpus.manifest import SPLITS
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.compose import load_yaml
from dograph.files.atomic import read_json, write_json, write_text
from dograph.files.changes import recipe_text
from dograph.files.run_dir import PROVENANCE, RECIPE

if TYPE_CHECKING:
    from dograph.experiments.run_inputs import RunInputs

REQUIRED = {"seed": int, "fingerprint": str, "tokenizer": str, "corpus": str}
"""Keys that every run's provenance has, with their types."""
PACKAGES = (
    *("dograph", "lightning", "torch", "transformers", "litdata"),
    *("piqp", "cvxpylayers", "numpy"),
)


class Provenance(Callback):
    """Writes the resolved recipe and where everything came from when training begins.

    A resumed run keeps what it began with. Resumed with other inputs, it loses its digest, since
    it is a run of neither recipe, and records the other recipe and the keys that differ.
    """

    def __init__(self, folder: Path, recipe: Recipe, inputs: RunInputs) -> None:
        self.folder, self.recipe, self.inputs = folder, recipe, inputs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``recipe.yaml`` and ``provenance.json``, unless the run is resumed."""
        if trainer.is_global_zero and not self._resumes(trainer):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / RECIPE, self.recipe.as_yaml())
            content = provenance_content(self.recipe, self.inputs, trainer.world_size)
            write_json(self.folder / PROVENANCE, content)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what a resumed run resumes with, once its checkpoint has been accepted."""
        if trainer.is_global_zero and self._resumes(trainer):
            before = read_provenance(self.folder)
            now = self._resumed(before, trainer.global_step)
            if now != before:
                write_json(self.folder / PROVENANCE, now)

    def _resumes(self, trainer: Trainer) -> bool:
        return (self.folder / PROVENANCE).exists() and trainer.ckpt_path is not None

    def _resumed(self, before: dict[str, Any], step: int) -> dict[str, Any]:
        """The provenance of a run that resumes at a step."""
        now = {**before, "corpus": str(self.inputs.store.path)}
        if any(package_changes(before)):
            earlier = {
                "until": step,
                "commit": before.get("commit"),
                "versions": before.get("versions"),
            }
            now["earlier_packages"] = [*before.get("earlier_packages", []), earlier]
            now |= packages()
        if changes := self.inputs.changes_since(self.folder, before):
            entry = {"step": step, "changed": {key: list(pair) for key, pair in changes.items()}}
            now["gone_on_with"] = [*before.get("gone_on_with", []), self.recipe.as_yaml()]
            now["resumed"] = [*before.get("resumed", []), entry]
            now |= {"digest": None, "inputs": self.inputs.content}
        return now


def provenance_content(recipe: Recipe, inputs: RunInputs, processes: int) -> dict[str, Any]:
    """Seed, corpus, tokenizer, commit, versions, host, and the run's inputs with a digest."""
    store = inputs.store
    return {
        "seed": recipe.seed,
        "command": own_command(),
        "corpus": str(store.path),
        "fingerprint": store.fingerprint,
        "validation_fingerprint": store.fingerprint_of("validation"),
        "tokenizer": store.tokenizer_hash,
        "domains": domain_records(store),
        "digest": inputs.digest,
        "inputs": inputs.content,
        **({"started_from": dict(recipe.started_from)} if recipe.started_from else {}),
        **packages(),
        "host": {**host_metadata(), "processes": processes},
    }


def own_command() -> list[str]:
    """The words of this process's command; `python -m dograph` is `dograph`."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return [name, *sys.argv[1:]]


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


def domain_records(store: Store) -> dict[str, dict[str, Any]]:
    """Document counts and digests of every domain's splits, to tell later which one changed."""
    files = store.files
    return {
        entry.name: {
            "documents": entry.documents + entry.validation_documents,
            "hashes": [files.get(f"domains/{entry.name}/{split}.hashes") for split in SPLITS],
        }
        for entry in store.domains
    }


def packages() -> dict[str, Any]:
    """This package's commit, and the versions of all that decide numbers."""
    return {"commit": own_commit(), "versions": {name: version_of(name) for name in PACKAGES}}


def package_changes(provenance: Mapping[str, Any]) -> Iterator[str]:
    """How commit and versions differ from those that a run recorded, a text each."""
    versions = provenance.get("versions") or {}
    now = packages()
    for name, before, after in (
        ("commit", provenance.get("commit"), now["commit"]),
        *((f"version of {p}", versions.get(p), now["versions"][p]) for p in PACKAGES),
    ):
        if before != after:
            yield f"{name}: {before} → {after}"


def latest_recipe(folder: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved recipe under which a run was last started: its own, or that of a resume."""
    later = provenance.get("gone_on_with")
    if isinstance(later, list) and later:
        return recipe_text(str(later[-1]), f"{folder / PROVENANCE}: gone_on_with")
    values = OmegaConf.to_container(load_yaml(folder / RECIPE))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


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
