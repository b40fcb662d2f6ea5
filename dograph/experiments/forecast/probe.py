"""Seconds of a step, measured by training ten of them on this machine."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from dograph.data.corpus.store import Store
from dograph.data.loaders import loader_errors
from dograph.errors import UserError, memory_errors
from dograph.experiments.forecast.run_forecast import RunForecast
from dograph.experiments.recipe.check import Recipe, build_mixer
from dograph.experiments.run import build_data, build_model, build_trainer, quieten
from dograph.mixers.user_code import mixer_errors
from dograph.training.mixing_callback import MixingCallback

STEPS, FIRST = 10, 3
"""Steps of a probe, and how many of them are not counted: memory is new, code is compiled."""


class _Measured(Exception):  # noqa: N818  (an event, not an error)
    """The probe's steps are done; stopping the trainer otherwise would start a validation."""


class StepClock(Callback):
    """Notes when each optimiser step ended, and ends the fit after ``STEPS`` of them."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the time, once the device has finished the step."""
        if trainer.global_step == len(self.ends):  # more micro-batches to come
            return
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        if len(self.ends) == STEPS:
            raise _Measured

    @property
    def seconds(self) -> float:
        """Median seconds between two ends, without the first steps."""
        ends = self.ends[FIRST - 1 :]
        return statistics.median(after - before for before, after in pairwise(ends))


def seconds_a_step(recipe: Recipe, store: Store, forecast: RunForecast) -> float:
    """Train ten steps of a recipe on one device of this machine; seconds of one, without figures.

    On many devices each does as much; what they wait for one another is not in it.

    Raises:
        UserError: if the memory is too small, the run shorter, or the device not here.
    """
    if recipe.steps < STEPS:
        raise UserError(f"--measure trains {STEPS} steps, but trainer.max_steps is {recipe.steps}")
    need, have = min(each.total for each in forecast.memory.values()), _memory(forecast)
    if need > have:
        raise UserError(
            f"--measure trains {STEPS} steps on one device, which need some {need / 1e9:.0f} GB of "
            f"memory, and this machine has {have / 1e9:.0f}: leave it out here"
        )
    quieten()
    alone = _on_one_device(recipe)
    data, clock, mixing = build_data(alone), StepClock(), MixingCallback(recipe.sketch)
    data.store = store
    trainer = build_trainer(alone, logger=False, callbacks=[mixing, clock])
    seed_everything(recipe.seed, workers=True, verbose=False)
    with memory_errors(), loader_errors(data.workers), mixer_errors(data.mixer):
        model = build_model(alone, store, data.context)
        try:
            trainer.fit(model, datamodule=data)
        except _Measured:
            return clock.seconds
    raise UserError(f"--measure: training ended before step {STEPS}")


def _on_one_device(recipe: Recipe) -> Recipe:
    """The same recipe on one device, without a progress bar, with a mixer of its own."""
    trainer = recipe.sections["trainer"].clone()
    for key, value in {
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }.items():
        trainer[key] = value
    mixer = build_mixer(recipe.composition, recipe.seed)
    return replace(recipe, mixer=mixer, sections={**recipe.sections, "trainer": trainer})


def _memory(forecast: RunForecast) -> float:
    """Bytes of the memory that a probe would run in."""
    on_gpu = forecast.devices.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    if on_gpu:
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
