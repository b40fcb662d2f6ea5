"""Lightning scripts of one's own: other loops, callbacks and models around a DataMixer."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateFinder
from lightning.pytorch.loggers import TensorBoardLogger

from dograph.data.corpus.settings import CorpusSettings
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.mixers import BaseMixer, Fixed, Stratified
from dograph.reports.mixture_report import MixtureReport
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback
from dograph.training.optimizers import warmup_cosine

TINY = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 32, "vocab_size": 300}


class Seeks(BaseMixer):
    """Draws more of what is hard."""

    def update(self, signals):
        return torch.softmax(3 * signals.domain_loss, dim=0)


class Sees(Callback):
    """Keeps the tokens and learning rate of every batch."""

    def __init__(self):
        self.tokens, self.rates = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.tokens.append(batch.tokens.sum().item())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def trainer_of(callbacks=(), **options):
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    settings = {"max_steps": 4, "max_epochs": -1, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    settings |= {"accelerator": "cpu", "devices": 1, "use_distributed_sampler": False}
    return Trainer(callbacks=[*callbacks], **dict.fromkeys(quiet, False) | settings | options)


def fit(settings, mixer=None, callbacks=None, model=None, data=None, resume=None, **options):
    """(model, DataMixer, its trainer) after a short fit; by default with a MixingCallback."""
    seed_everything(1, verbose=False)
    data = data or DataMixer(mixer, settings, 16, 8, validation_sequences=4)
    model = model or LanguageModel(config=TINY)
    trainer = trainer_of([MixingCallback()] if callbacks is None else callbacks, **options)
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=resume is None)
    return model, data, trainer


def test_epochs_and_resumes_without_a_mixing_callback_go_on(store, corpus_settings, tmp_path):
    expected, seen, resumed = Sees(), Sees(), Sees()
    fit(corpus_settings, None, [MixingCallback(), expected], max_steps=6)
    epochs = {"limit_train_batches": 2}
    _, data, trainer = fit(corpus_settings, None, [seen], **epochs)
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    assert seen.tokens == expected.tokens[:4]
    assert data.sampler.realised.sum() == 4 * 8
    fit(corpus_settings, None, [resumed], resume=tmp_path / "four.ckpt", max_steps=6, **epochs)
    assert resumed.tokens == expected.tokens[4:]


class Manual(LanguageModel):
    """Steps twice a batch."""

    def __init__(self):
        super().__init__(config=TINY)
        self.automatic_optimization = False


class OwnLoss(LanguageModel):
    """Doubles its loss by a method."""

    def reduce_loss(self, batch, token_losses):
        return 2 * token_losses.mean()


class WithoutSeam(LanguageModel):
    """Knows of no reduce_loss."""

    def training_step(self, batch, batch_idx):
        return self.token_losses(batch.tokens).mean()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Manual, "automatic_optimization is False"),
        (lambda: OwnLoss(config=TINY), r"OwnLoss\.reduce_loss is your own"),
        (lambda: WithoutSeam(config=TINY), r"training_step does not call self\.reduce_loss"),
    ],
)
def test_models_that_the_mixer_would_not_reach_are_refused(store, corpus_settings, model, message):
    with pytest.raises(UserError, match=message):
        fit(corpus_settings, Stratified(), model=model())


def test_a_models_own_way_to_reduce_its_losses_is_its_loss():
    losses = torch.tensor([[1.0, 2.0]])
    assert OwnLoss(config=TINY).reduce_loss(None, losses) == 3
    assert LanguageModel(config=TINY).reduce_loss(None, losses) == 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_train_batches": 0.5}, "limit_train_batches is 0.5, a share of batches without"),
        ({"val_check_interval": 0.5}, "val_check_interval is 0.5, a share of batches without end"),
    ],
)
def test_shares_of_an_endless_epoch_are_refused(store, corpus_settings, options, message):
    with pytest.raises(UserError, match=message):
        fit(corpus_settings, **options)


def test_steps_whose_size_would_change_are_refused(store, corpus_settings):
    scheduler = GradientAccumulationScheduler({0: 1, 1: 2})
    with pytest.raises(UserError, match="GradientAccumulationScheduler"):
        fit(corpus_settings, None, [MixingCallback(), scheduler])


class Sets(Callback):
    """Sets a mixer's weights by hand."""

    def __init__(self, name):
        self.name = name

    def on_train_batch_end(self, trainer, *_):
        getattr(trainer.datamodule.mixer, self.name).copy_(torch.tensor([0.8, 0.1, 0.1]))


@pytest.mark.parametrize("name", ["weights", "sampling_weights"])
def test_weights_that_a_callback_sets_by_hand_are_refused(store, corpus_settings, name):
    fixed = Fixed(dict.fromkeys(("animals", "code", "numbers"), 1))
    with pytest.raises(UserError, match=rf"Fixed\.{name} was changed by other means"):
        fit(corpus_settings, fixed, [MixingCallback(), Sets(name)])


class Spikes(Callback):
    """Makes one gradient of the second step infinite."""

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == 1:
            next(pl_module.parameters()).grad.view(-1)[0] = torch.inf


def test_infinite_gradients_are_skipped_when_clipped_by_value(store, corpus_settings):
    by_value = {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}
    model, _, _ = fit(corpus_settings, None, [MixingCallback(), Spikes()], **by_value)
    assert model.skipped[0] == 1


class OwnGroups(LanguageModel):
    """Decays and learns in its second group otherwise."""

    def configure_optimizers(self):
        configured = super().configure_optimizers()
        configured["optimizer"].param_groups[1]["weight_decay"] = 0.7
        configured["lr_scheduler"]["scheduler"].base_lrs[1] *= 5
        return configured


def test_groups_that_a_subclass_changes_stay_changed(store, corpus_settings, tmp_path):
    _, _, trainer = fit(corpus_settings, model=OwnGroups(config=TINY))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    quicker = OwnGroups(config=TINY, learning_rate=2e-3)
    _, _, later = fit(corpus_settings, model=quicker, resume=tmp_path / "a.ckpt", max_steps=6)
    for each, rate in ((trainer, 1e-3), (later, 2e-3)):
        first, second = each.optimizers[0].param_groups
        assert (first["weight_decay"], second["weight_decay"]) == (0.01, 0.7)
        assert second["lr"] == pytest.approx(5 * first["lr"])
        assert first["initial_lr"] == rate


def test_a_search_for_a_learning_rate_leaves_no_trace(store, corpus_settings, tmp_path):
    plain, searched, mixings = Sees(), Sees(), (MixingCallback(), MixingCallback())
    search = LearningRateFinder(num_training_steps=30, early_stop_threshold=None)
    _, alone, _ = fit(corpus_settings, Seeks(), [mixings[0], plain])
    seed_everything(1, verbose=False)
    own = LanguageModel(config=TINY, warmup=0, final_learning_rate=1e-9)
    callbacks = [mixings[1], searched, search]
    model, data, _ = fit(corpus_settings, Seeks(), callbacks, own, default_root_dir=tmp_path)
    assert searched.tokens[0] == plain.tokens[0]
    assert data.sampler.trained == alone.sampler.trained == 4
    assert torch.equal(mixings[0].effective, mixings[1].effective)
    assert torch.allclose(data.mixer.history[1][1], alone.mixer.history[1][1])
    final = 1e-9 / model.learning_rate
    factors = [warmup_cosine(step, warmup=0, total=4, final=final) for step in range(4)]
    assert searched.rates == pytest.approx([model.learning_rate * each for each in factors])


class SavesMidway(Callback):
    """Saves after the third batch."""

    def __init__(self, place):
        self.place, self.batches = place, 0

    def on_train_batch_end(self, trainer, *_):
        self.batches += 1
        if self.batches == 3:
            trainer.save_checkpoint(self.place)


def test_a_checkpoint_in_the_midst_of_a_step_is_warned_of(store, corpus_settings, tmp_path, caplog):
    place, parts = tmp_path / "midway.ckpt", {"accumulate_grad_batches": 2}
    fit(corpus_settings, None, [MixingCallback(), SavesMidway(place)], **parts)
    assert "unfinished" not in caplog.text
    fit(corpus_settings, resume=place, **parts)
    assert "saved after 1 batches of an optimiser step" in caplog.text


@pytest.mark.parametrize(
    ("mixer", "options", "late"),
    [
        ({}, {"lookahead": 4}, True),
        ({}, {"lookahead": 2}, False),
        ({"warmup": 2}, {"lookahead": 1}, True),
    ],
)
def test_weights_that_come_too_late_are_warned_of(
    store, corpus_settings, mixer, options, late, caplog
):
    seeks = type("M", (Seeks,), {"__init__": lambda self: BaseMixer.__init__(self, **mixer)})()
    fit(corpus_settings, data=DataMixer(seeks, corpus_settings, 16, 8, **options))
    assert ("nothing is drawn by them" in caplog.text) is late


def test_a_report_without_its_perplexity_is_refused(store, corpus_settings, tmp_path):
    mixing = MixingCallback()
    callbacks = [mixing, DomainPerplexity(), MixtureReport(mixing, DomainPerplexity())]
    with pytest.raises(UserError, match="reads the losses of its DomainPerplexity"):
        fit(corpus_settings, None, callbacks, logger=TensorBoardLogger(tmp_path))


def test_a_mixer_knows_the_run_that_it_is_trained_in(store, corpus_settings):
    data = DataMixer(Stratified(), corpus_settings, 16, 8)
    data.setup()
    assert data.mixer.token_budget == 0
    fit(corpus_settings, data=data, max_steps=100, max_epochs=2, limit_train_batches=2)
    assert data.mixer.token_budget == 2 * 2 * 8 * 17


@pytest.mark.parametrize(
    ("name", "value"), [("cap", {"code": 100}), ("corpus", CorpusSettings(vocab_size=999))]
)
def test_what_is_changed_after_set_up_is_refused(store, corpus_settings, name, value):
    data = DataMixer(None, corpus_settings, 16, 8)
    data.setup()
    setattr(data, name, value)
    with pytest.raises(UserError, match=rf"DataMixer\.{name} was "):
        data.train_dataloader()


def test_unseen_domains_that_are_named_before_set_up_are_the_targets_too(store, corpus_settings):
    data = DataMixer(None, corpus_settings, 16, 8)
    data.unseen = ("animals",)
    data.setup()
    assert data.target.unseen == data.mixer.unseen == ("animals",)


@pytest.mark.parametrize(
    "options", [{"context": 16.5}, {"batch_size": 8.0}, {"lookahead": 4.5}, {"cap": {"a": 1000.5}}]
)
def test_parts_of_a_whole_are_refused(options):
    with pytest.raises(UserError, match="it must be a whole number"):
        DataMixer(**options)


@pytest.mark.parametrize("interval", [1, 2])
def test_losses_older_than_the_models_end_are_warned_of(store, corpus_settings, interval, caplog):
    epochs = {"max_steps": -1, "max_epochs": 3, "limit_train_batches": 2, "limit_val_batches": 1}
    callbacks = [MixingCallback(), DomainPerplexity()]
    fit(corpus_settings, None, callbacks, check_val_every_n_epoch=interval, **epochs)
    assert ("the last validation was after step 4 of 6" in caplog.text) is (interval == 2)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 299}, "vocab_size is 299, but the corpus has 300 tokens"),
        ({"max_position_embeddings": 15}, "allows 15 positions, but data.context is 16"),
    ],
)
def test_a_model_that_is_too_small_for_its_data_is_refused(store, corpus_settings, sizes, message):
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = {**layers, "hidden_size": 16, "intermediate_size": 16, "vocab_size": 300, **sizes}
    with pytest.raises(UserError, match=message):
        fit(corpus_settings, None, [], LanguageModel("llama", config))


def test_loaders_need_a_set_up(corpus_settings):
    with pytest.raises(UserError, match="before its setup"):
        DataMixer(None, corpus_settings, 16, 8).val_dataloader()
