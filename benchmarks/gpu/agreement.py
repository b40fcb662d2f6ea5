"""Losses of the same training on CPU and GPU: nano models in float32, step by step."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from benchmarks.gpu.size import CORPUS, RECIPES, RUNS, SIZES
from dograph.data.corpus.prepare import prepare
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import train

STEPS = 20
COMPARED = ("run", "dograph")
"""Stratified, and the mixer that sketches, clusters and solves at every step."""


class Losses(Callback):
    """Keep the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


def losses(name: str, device: str, size: str, store: str | None, folder: Path) -> list[float]:
    """The losses of ``STEPS`` steps of a recipe's small model on a device."""
    words = [
        *SIZES[size].compared,
        f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
        f"trainer.max_steps={STEPS}",
        "trainer.precision=32-true",
        "trainer.limit_val_batches=0",
        "trainer.enable_progress_bar=false",
        "report.figures_every=0",
        *([f"corpus.source={store}"] if store else CORPUS),
    ]
    recipe = check(compose(RECIPES / RUNS[name], words))
    kept = Losses()
    store_opened = prepare(recipe.corpus, progress=False)
    train(recipe, store_opened, folder / f"{name}_{device}", callbacks=[kept])
    return kept.values


def main() -> None:
    """Print the losses of all compared recipes on both devices as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--store", help="a prepared corpus")
    parser.add_argument("--write", type=Path, required=True, help="file of the losses")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: {
                device: losses(name, device, given.size, given.store, Path(folder))
                for device in dict.fromkeys(("cpu", given.device))
            }
            for name in COMPARED
        }
    given.write.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
