"""Where a run came from: its recipe, versions, corpus and commit."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from dograph.corpus.store import Store
from dograph.recipe import Recipe

VERSIONS_OF = ("dograph", "lightning", "torch", "transformers", "litdata", "cvxpylayers")


class Provenance(Callback):
    """Writes the resolved recipe and where everything came from, as training begins.

    A run that is gone on with keeps what it began with.

    Args:
        folder: of the run.
        recipe: checked.
        store: the prepared corpus.
    """

    def __init__(self, folder: Path, recipe: Recipe, store: Store) -> None:
        self.folder, self.recipe, self.store = folder, recipe, store

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes ``recipe.yaml`` and ``provenance.json``, unless they are there."""
        if not trainer.is_global_zero or (self.folder / "provenance.json").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "recipe.yaml").write_text(self.recipe.as_yaml())
        facts = json.dumps(self.facts(), indent=1)
        (self.folder / "provenance.json").write_text(facts + "\n")

    def facts(self) -> dict[str, Any]:
        """Seed, corpus, tokenizer, commit and versions."""
        return {
            "seed": self.recipe.seed,
            "corpus": str(self.store.path),
            "fingerprint": self.store.fingerprint,
            "tokenizer": self.store.tokenizer_hash,
            "commit": own_commit(),
            "versions": {name: version_of(name) for name in VERSIONS_OF},
        }


def version_of(distribution: str) -> str | None:
    """The installed version; None for a package that runs from its source folder."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def own_commit() -> str | None:
    """The commit of this package's own checkout; None where it is installed, or without git."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return answer.stdout.strip() or None
