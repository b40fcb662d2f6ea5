"""Code of a process that trains one recipe many times in a row, as one of the ranks."""

import json
import os
import signal
import sys
from itertools import product
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dograph.data.corpus.prepare import prepare
from dograph.experiments.recipe.check import check, check_again
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.run import build_callbacks, build_data, build_model, quieten
from dograph.mixers import DoGraph
from dograph.training.checkpoint_writer import AtomicCheckpoints, Interrupted
from dograph.training.mixing_callback import MixingCallback

ACCUMULATE = (1, 3)
STEPS, STOP = 12, 5
VALIDATES = 4
"""Optimiser steps between two validations."""


class Watch(Callback):
    """Keeps what is drawn and how it counts; stops a run as Ctrl-C does, between two of its steps.

    Args:
        stop: micro-batches until then; 0 never.
    """

    def __init__(self, stop):
        self.stop, self.trace = stop, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        mixing = next(each for each in trainer.callbacks if isinstance(each, MixingCallback))
        signals, mixer = mixing.signals, trainer.datamodule.mixer
        self.trace.append(
            {
                "domains": signals.domain.tolist(),
                "losses": signals.sequence_loss.clone(),
                "loss_weights": signals.loss_weights.clone(),
                "weights": mixer.weights.clone(),
            }
        )
        if len(self.trace) == self.stop and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGINT)


def fit(recipe, store, job, accumulate, workers, folder, stop=0, checkpoint=None):
    """Trains a recipe on this rank; all that is left in the end, or the checkpoint of a stop."""
    recipe = check_again(recipe, recipe.composition)  # with a mixer that was never trained with
    seed_everything(recipe.seed, workers=True, verbose=False)
    data = build_data(recipe)
    data.store, data.workers = store, workers
    data.batch_size //= job["ranks"]
    callbacks, report, saver = build_callbacks(recipe, folder)
    mixing, perplexity = report.mixing, report.perplexity
    watch = Watch(stop)
    others = [each for each in callbacks if each not in (report, saver)]
    arguments = recipe.arguments("trainer") | {
        "devices": job["ranks"],
        "strategy": "ddp" if job["ranks"] > 1 else "auto",
        "accumulate_grad_batches": accumulate,
        "val_check_interval": VALIDATES * accumulate,
        "plugins": [AtomicCheckpoints()],
    }
    trainer = Trainer(
        **arguments,
        max_epochs=-1,
        logger=False,
        callbacks=[*others, watch, saver],
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    model = build_model(recipe, store, data.context)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Interrupted as interruption:
        return interruption.checkpoint
    return {
        "network": model.state_dict(),
        "optimiser": trainer.optimizers[0].state_dict(),
        "mixer": data.mixer.state_dict(),
        "sampler": data.sampler.state_dict(),
        "effective": mixing.effective,
        "validation": dict(perplexity.losses),
        "learns": data.mixer.learns,
        "clusters": isinstance(data.mixer, DoGraph),
        "trace": watch.trace,
    }


def main():
    """Does a job's runs; leaves their ends by accumulation, loader processes and whether resumed.

    Without loader processes there is a run that is not stopped, too: the others must end as it.
    """
    job = json.loads(Path(sys.argv[1]).read_text())
    rank_zero_only.rank = int(os.environ.get("LOCAL_RANK", "0"))  # as Lightning's import finds it
    quieten()
    recipe, ends = check(RecipeFile(Path(job["recipe"])).compose()), {}
    store = prepare(recipe.corpus, progress=False)
    for accumulate, workers in product(ACCUMULATE, job["workers"]):
        given = (recipe, store, job, accumulate, workers)
        place = Path(job["folder"]) / f"{job['ranks']}_{accumulate}_{workers}"
        if not workers:
            ends[accumulate, workers, False] = fit(*given, place)
        stop = STOP * accumulate - (accumulate > 1)  # a batch of the fifth step is still to come
        checkpoint = fit(*given, place, stop=stop)
        assert checkpoint.name == f"step={STOP}.ckpt", checkpoint
        ends[accumulate, workers, True] = fit(*given, place, checkpoint=checkpoint)
    torch.save(ends, job["ends"])
