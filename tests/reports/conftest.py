"""Pictures' ingredients, and one small observed run that several tests read."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from dograph.data.data_mixer import DataMixer
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.reports.mixture_report import MixtureReport
from dograph.signals.sketches import SketchSettings
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback


class SaveAt(Callback):
    """Saves a checkpoint after a step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(corpus_settings, store, folder, mixer=None, steps=12, checkpoint=None, **report_arguments):
    """Trains a tiny model with a report; resumes from ``checkpoint`` if one is given."""
    torch.manual_seed(0)
    data = DataMixer(mixer, corpus_settings, context=16, batch_size=8, validation_sequences=8)
    config = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": store.vocab_size}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = LanguageModel(config={**config, **ends, "n_positions": 16}, warmup=2)
    mixing = MixingCallback(SketchSettings(rank=4), observe_every=6, observe_window=2)
    perplexity = DomainPerplexity()
    settings = {"every": 4, "figures_every": 6, "clusters": 3, **report_arguments}
    report = MixtureReport(mixing, perplexity, **settings)
    trainer = Trainer(
        max_steps=steps,
        val_check_interval=6,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        max_epochs=-1,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="", version="run", default_hp_metric=False),
        callbacks=[mixing, perplexity, report, SaveAt(5, folder / "five.ckpt")],
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return SimpleNamespace(
        trainer=trainer, report=report, data=data, mixing=mixing, folder=folder / "run"
    )


@pytest.fixture(scope="session")
def fit_tiny(corpus_settings, store):
    """``fit`` on the small corpus."""
    return partial(fit, corpus_settings, store)


@pytest.fixture(scope="session")
def stratified_run(fit_tiny, tmp_path_factory):
    """Twelve steps of the baseline, with a checkpoint after five."""
    hyperparameters = {"model": {"n_embd": 16}, "seed": 0, "note": None}
    folder = tmp_path_factory.mktemp("runs")
    return fit_tiny(folder, hyperparameters=hyperparameters, print_at_end=False)
