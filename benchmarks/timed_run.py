"""Short training runs with timed steps, for several benchmarks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything

from dograph.data.corpus.prepare import prepare
from dograph.data.data_mixer import DataMixer
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import build_model
from dograph.mixers import BaseMixer
from dograph.signals.sketches import SketchSettings
from dograph.training.mixing_callback import MixingCallback

RECIPE = Path(__file__).parent.parent / "recipes" / "uniform_gpt2.yaml"


class StepTimes(Callback):
    """Record when every training step ends."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.marks.append(time.perf_counter())


def timed_run(
    model: str, mixer: BaseMixer, steps: int, sketch: SketchSettings | None = None, seed: int = 0
) -> list[float]:
    """Train on the environment corpus and return the seconds of every step but the first.

    Args:
        model: name of a file in configs/model.
        mixer: the mixer; it keeps its state after the run.
        steps: number of steps, of the learning-rate schedule too.
        sketch: settings of the gradient sketches.
        seed: the run's seed.
    """
    recipe = check(compose(RECIPE, [f"compose.model={model}"]))
    data = DataMixer(mixer, recipe.corpus, seed=seed, **recipe.arguments("data"))
    seed_everything(seed, verbose=False)
    built = build_model(recipe, prepare(recipe.corpus, progress=False), data.context)
    times = StepTimes()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=[MixingCallback(sketch), times],
    )
    trainer.fit(built, datamodule=data)
    return [after - before for before, after in zip(times.marks, times.marks[1:], strict=False)]
