"""Limits in real runs: what is drawn keeps to them, also after a resume."""

import numpy as np
import pytest
from lightning.pytorch import Callback, seed_everything
from test_own_scripts import TINY, trainer_of

from dograph import DataMixer, MixingCallback
from dograph.errors import UserError
from dograph.mixers import ODM, DoGraphSchedule, Phase, Phases, Stratified
from dograph.mixers.limits import Limits
from dograph.training.language_model import LanguageModel

LIMITS = Limits(epochs={"animals": 0.5}, at_least={"code": 0.4})


def fit(settings, mixer, resume=None, limits=LIMITS, callbacks=(), **options):
    """(DataMixer, its trainer) after a short fit of 16 sequences a step."""
    seed_everything(1, verbose=False)
    data = DataMixer(mixer, settings, 16, 16, validation_sequences=4, limits=limits)
    trainer = trainer_of([MixingCallback(), *callbacks], **options)
    trainer.fit(LanguageModel(config=TINY), datamodule=data, ckpt_path=resume, weights_only=False)
    return data, trainer


@pytest.mark.parametrize("mixer", [Stratified, lambda: ODM(warmup=0), DoGraphSchedule])
def test_what_is_drawn_keeps_to_epochs_and_shares(store, corpus_settings, mixer):
    data, _ = fit(corpus_settings, mixer(), max_steps=20)
    drawn = data.sampler.realised
    available = [len(domain) for domain in data.train_domains]
    names = list(data.domains)
    assert drawn[names.index("animals")] <= 0.5 * available[names.index("animals")] + 1
    assert drawn[names.index("code")] >= 0.4 * drawn.sum() - 1


class SavesAt(Callback):
    """Saves a checkpoint after five steps."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_knows_what_was_drawn_before(store, corpus_settings, tmp_path):
    path = tmp_path / "five.ckpt"
    whole, _ = fit(corpus_settings, ODM(warmup=0), callbacks=[SavesAt(path)], max_steps=12)
    resumed, _ = fit(corpus_settings, ODM(warmup=0), path, max_steps=12)
    assert np.array_equal(resumed.sampler.realised, whole.sampler.realised)
    assert resumed.mixer.history[-1][1].tolist() == whole.mixer.history[-1][1].tolist()
    assert resumed.mixer.prices == whole.mixer.prices


def test_a_resume_with_limits_that_the_run_does_not_keep_to_is_refused(
    store, corpus_settings, tmp_path
):
    """Phases that stand still never update: new limits once had no effect, without a word."""
    path, first = tmp_path / "five.ckpt", {"animals": 9, "code": 9, "numbers": 2}

    def phases():
        return Phases([Phase(0, first), Phase(1, {"code": 1, "numbers": 9})])

    fit(corpus_settings, phases(), limits=Limits(), callbacks=[SavesAt(path)], max_steps=6)
    tighter = Limits(at_most={"numbers": 0.5})
    with pytest.raises(UserError, match=r"mixture does not keep limits.at_most.numbers 0.5"):
        fit(corpus_settings, phases(), path, limits=tighter, max_steps=6)


def test_too_little_text_is_refused_before_the_first_step(store, corpus_settings):
    with pytest.raises(UserError, match=r"limits.epochs.animals 0.1 .* cannot hold together"):
        fit(corpus_settings, Stratified(), limits=Limits(epochs=0.1), max_steps=200)
