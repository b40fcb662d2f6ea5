"""Invariants 3, 5 and 10: workers, observers and ranks do not change training."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor
from two_ranks import run_on_two_ranks

from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.mixers import (
    BaseMixer,
    BatchSignals,
    DoGEOnline,
    DoGraph,
    DoReMiOnline,
    Stratified,
    ValidationLoss,
)
from dograph.signals.batch_signals import join
from dograph.signals.sketches import SketchSettings
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback

TINY = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 32}


class LossSeeker(BaseMixer):
    """Draws more of what is hard: weights that move after every step."""

    def update(self, signals: BatchSignals) -> Tensor:
        means = torch.full((len(self.domains),), 1.0)
        for index in signals.domain.unique():
            means[index] = signals.sequence_loss[signals.domain == index].mean()
        return torch.softmax(3 * means.double(), dim=0)


class Losses(MixingCallback):
    """Keeps every step's losses and weights beside mixing."""

    def __init__(self, **options):
        super().__init__(**options)
        self.trace = []

    def on_train_batch_end(self, trainer, *arguments):
        super().on_train_batch_end(trainer, *arguments)
        self.trace.append((self.signals.sequence_loss.clone(), self.data.mixer.weights.clone()))


PRECISIONS = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


def train(settings, mixer, steps=10, batch_size=16, devices=1, **options):
    """A short real run; (parameters, losses and weights of all steps, DataMixer)."""
    of_data = {"workers", "draw", "target", "unseen", "lookahead"} & options.keys()
    data_options = {key: options.pop(key) for key in of_data}
    mixing_options = {key: options.pop(key) for key in list(options) if key.startswith("observe")}
    after, resume = options.pop("after", []), options.pop("ckpt_path", None)
    seed_everything(options.pop("seed", 1), verbose=False)
    data = DataMixer(
        mixer, settings, 32, batch_size, validation_sequences=8, seed=1, **data_options
    )
    config = {**TINY, "vocab_size": 300, **options.pop("config", {})}
    model = LanguageModel(config=config, **options.pop("model", {}))
    mixing = Losses(sketch=options.pop("sketch", SketchSettings(rank=4)), **mixing_options)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        **{"limit_val_batches": 0, **options},
        callbacks=[mixing, *after],
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    parameters = torch.cat([parameter.flatten() for parameter in model.parameters()]).detach()
    return parameters, mixing.trace, data


def assert_same(first, second):
    assert torch.equal(first[0], second[0])
    for (losses, weights), (other_losses, other_weights) in zip(first[1], second[1], strict=True):
        assert torch.equal(losses, other_losses)
        assert torch.equal(weights, other_weights)


class ValidationSeeker(BaseMixer):
    """Draws more of what is hard when it is validated."""

    needs = frozenset({ValidationLoss()})

    def update(self, signals: BatchSignals) -> Tensor:
        if self.validation_loss is None:
            return self.weights
        return torch.softmax(3 * self.validation_loss, dim=0)


def test_a_mixer_is_told_the_losses_of_validations(store, corpus_settings):
    perplexity = DomainPerplexity()
    often = {"limit_val_batches": 1.0, "val_check_interval": 4}
    _, trace, data = train(corpus_settings, ValidationSeeker(), after=[perplexity], **often)
    losses = torch.tensor([perplexity.losses[name] for name in data.domains]).double()
    torch.testing.assert_close(data.mixer.validation_loss, losses)
    weights = torch.stack([each for _, each in trace])
    assert (weights[:4] == weights[0]).all()  # the first validation follows step 4
    assert not torch.equal(weights[4], weights[3])
    assert torch.equal(weights[5], weights[4])


def test_a_mixer_that_reads_validations_is_not_run_without_them(store, corpus_settings):
    with pytest.raises(UserError, match="limit_val_batches is 0"):
        train(corpus_settings, ValidationSeeker())
    with pytest.raises(UserError, match=r"add DomainPerplexity\(\)"):
        train(corpus_settings, ValidationSeeker(), limit_val_batches=1.0, val_check_interval=4)


def test_a_first_validation_that_comes_too_late_is_named(store, corpus_settings, caplog):
    late = {"limit_val_batches": 1.0, "val_check_interval": 10}
    train(corpus_settings, ValidationSeeker(), after=[DomainPerplexity()], **late)
    assert "trainer.val_check_interval is 10, but ValidationSeeker" in caplog.text


def test_observing_never_changes_training(store, corpus_settings):
    plain = train(corpus_settings, Stratified())
    observed = train(corpus_settings, Stratified(), observe_every=1, observe_window=1)
    assert_same(plain, observed)


@pytest.mark.parametrize("mixer", [LossSeeker, lambda: DoGraph(clusters=4)])
@pytest.mark.parametrize("draw", ["stratified", "multinomial"])
def test_batches_losses_and_weights_are_bitwise_equal_for_any_workers(
    store, corpus_settings, mixer, draw
):
    alone = train(corpus_settings, mixer(), draw=draw)
    for workers in (1, 2):
        assert_same(alone, train(corpus_settings, mixer(), draw=draw, workers=workers))


def test_live_weights_reach_the_draws(store, corpus_settings):
    class OnlyCode(BaseMixer):
        def update(self, signals):
            return torch.tensor([float(name == "code") for name in self.domains])

    _, _, data = train(corpus_settings, OnlyCode(), steps=10)
    code = data.domains.index("code")
    others = data.sampler.realised.sum() - data.sampler.realised[code]
    # Batches 1 to 1 + lookahead are uniform, all later ones hold code alone.
    assert others == pytest.approx((1 + data.lookahead) * 16 * 2 / 3, abs=2)


def test_mixers_with_the_same_sampling_get_bitwise_the_same_batches(store, corpus_settings):
    def batches(mixer):
        data = DataMixer(mixer, corpus_settings, 32, 16, seed=5)
        data.setup()
        loader = iter(data.train_dataloader())
        return [next(loader) for _ in range(5)]

    for first, second in zip(batches(Stratified()), batches(DoGraph(clusters=3)), strict=True):
        assert torch.equal(first.tokens, second.tokens)
        assert torch.equal(first.documents, second.documents)


def test_mixed_precision_trains_with_clipping_and_a_fused_optimiser(store, corpus_settings):
    exact = train(corpus_settings, DoGraph(clusters=4), steps=3)
    mixed = train(corpus_settings, DoGraph(clusters=4), steps=3, precision="bf16-mixed")
    assert torch.isfinite(mixed[0]).all()
    assert torch.allclose(exact[1][0][0], mixed[1][0][0], rtol=1e-2)


def test_fresh_projections_and_a_window_are_refused(store, corpus_settings):
    with pytest.raises(UserError, match=r"sketch.fresh.*window"):
        train(corpus_settings, DoGraph(clusters=4, window=2), sketch=SketchSettings(fresh=True))


def test_a_mixer_may_be_trained_with_twice(store, corpus_settings):
    mixer = DoGraph(clusters=4, window=2)
    assert_same(train(corpus_settings, mixer), train(corpus_settings, mixer))


def test_uniform_weights_are_plain_training(store, corpus_settings):
    anchored = train(corpus_settings, DoGraph(clusters=4, anchor=1e9))[0]
    plain = train(corpus_settings, Stratified())[0]
    assert torch.allclose(anchored, plain, atol=1e-4)
    assert not torch.allclose(train(corpus_settings, DoGraph(clusters=4))[0], plain, atol=1e-4)


def test_accumulated_micro_batches_are_seen_as_one_batch(store, corpus_settings):
    signals = []

    class Looks(LossSeeker):
        def update(self, batch):
            signals.append(batch)
            return super().update(batch)

    _, _, data = train(corpus_settings, Looks(), steps=3, batch_size=8, accumulate_grad_batches=2)
    steps = signals[-3:]  # the others are the dry run's
    assert [batch.batch_size for batch in steps] == [16, 16, 16]
    assert all(batch.loss_weights.sum().item() == pytest.approx(1) for batch in steps)
    assert data.sampler.trained == 6


def test_joined_keeps_weights_on_the_simplex():
    part = BatchSignals(0, torch.zeros(2).long(), torch.ones(2), None, torch.tensor([0.25, 0.75]))
    both = join([part, part])
    assert both.loss_weights.tolist() == [0.125, 0.375, 0.125, 0.375]


def test_a_mixer_that_leaves_the_simplex_stops_training_with_its_name(store, corpus_settings):
    class Wrong(BaseMixer):
        def update(self, signals):
            return self.weights * 2

    with pytest.raises(UserError, match=r"Wrong.update.*off the simplex"):
        train(corpus_settings, Wrong(), steps=2)


def test_mixing_needs_a_data_mixer(corpus_settings):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[MixingCallback()]
    )
    loader = torch.utils.data.DataLoader(torch.zeros(4, 2))
    with pytest.raises(UserError, match="DataMixer"):
        trainer.fit(LanguageModel(config={**TINY, "vocab_size": 300}), loader)


def test_validation_losses_per_domain_are_those_of_the_model(store, corpus_settings):
    data = DataMixer(None, corpus_settings, 32, 16, validation_sequences=8)
    model = LanguageModel(config={**TINY, "vocab_size": 300})
    perplexity = DomainPerplexity()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[perplexity]
    )
    trainer.validate(model, datamodule=data, verbose=False)
    for index, loader in enumerate(data.val_dataloader()):
        losses = torch.cat([model.token_losses(batch.tokens) for batch in loader])
        expected = losses.mean().item()
        assert perplexity.losses[data.domains[index]] == pytest.approx(expected, rel=1e-5)


def test_ranks_validate_on_the_same_text_as_one_process(store, corpus_settings):
    """Seven sequences over two ranks: each counts once, and the repeated one does not."""
    data, sums, counts = DataMixer(None, corpus_settings, 32, 2, validation_sequences=7), 0, 0
    data.setup()
    model, seen = LanguageModel(config={**TINY, "vocab_size": 300}), []
    for rank in range(2):
        device = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=device)
        perplexity = DomainPerplexity()
        perplexity.on_validation_epoch_start(SimpleNamespace(datamodule=data), model)
        loader = data.val_dataloader()[0]
        seen.append(sum(len(each.tokens) for each in loader))
        for index, each in enumerate(loader):
            losses = model.token_losses(each.tokens)
            perplexity.on_validation_batch_end(None, model, losses, each, index, 0)
        mean = perplexity._means[data.domains[0]]
        sums, counts = sums + mean.mean_value.item(), counts + mean.weight.item()
    data.trainer = None
    alone = torch.cat([model.token_losses(each.tokens) for each in data.val_dataloader()[0]])
    assert seen == [4, 4] and counts == alone.numel() == 7 * 32
    assert sums / counts == pytest.approx(alone.mean().item(), rel=1e-5)


TWO_MIXERS = """
class Starts(LossSeeker):
    def initial_weights(self):  # rank zero's counts, whatever the other's is
        if os.environ.get("LOCAL_RANK", "0") == "0":
            return super().initial_weights()
        return torch.tensor([0.8, 0.1, 0.1])

for name, mixer in (("seeker", Starts()), ("dograph", DoGraph(clusters=4))):
    found = train(settings, mixer, steps=6, batch_size=8, **both)
    torch.save(found[:2], f"{name}{found[2].sampler.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_agree_with_one(store, corpus_settings, tmp_path):
    """Invariant 10 with two real processes: same global batch, same run up to rounding."""
    run_on_two_ranks(tmp_path, corpus_settings, TWO_MIXERS)
    for name, mixer in (("seeker", LossSeeker()), ("dograph", DoGraph(clusters=4))):
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in range(2))
        assert_same(first, second)
        alone = train(corpus_settings, mixer, steps=6, batch_size=16)
        for (losses, weights), (one, one_weights) in zip(first[1], alone[1], strict=True):
            assert torch.allclose(losses, one, atol=1e-4)
            assert torch.allclose(weights, one_weights, atol=1e-4)
        assert torch.allclose(first[0], alone[0], atol=1e-3)


class Draws(LossSeeker):
    """Draws at random from every global generator, before and after the backward."""

    def update(self, signals: BatchSignals) -> Tensor:
        drawn = torch.randn(len(self.domains)) + np.random.rand() + random.random()  # noqa: NPY002
        return torch.softmax(drawn.double(), dim=0)

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        return torch.softmax(torch.rand(signals.batch_size), dim=0)


class Saves(Callback):
    """Saves one checkpoint, as a run that is killed right afterwards leaves it."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_random_numbers_go_on_where_the_checkpoint_left_them(
    store, corpus_settings, tmp_path, accumulate
):
    """Mixers that draw at random, and dropout, resume to the bit."""
    path, dropout = tmp_path / "step.ckpt", {"resid_pdrop": 0.5, "embd_pdrop": 0.5}
    options = {"accumulate_grad_batches": accumulate, "config": dropout, "batch_size": 8}
    whole = train(corpus_settings, Draws(), 8, after=[Saves(path, 5)], **options)
    resumed = train(corpus_settings, Draws(), 8, ckpt_path=path, seed=9, **options)
    assert torch.equal(whole[0], resumed[0])
    assert torch.equal(whole[1][-1][1], resumed[1][-1][1])
    assert whole[2].sampler.realised.tolist() == resumed[2].sampler.realised.tolist()


def test_other_ranks_random_states_are_not_taken(store, corpus_settings, tmp_path, caplog):
    path = tmp_path / "step.ckpt"
    train(corpus_settings, Stratified(), 3, after=[Saves(path, 2)])
    content = torch.load(path, weights_only=True)
    content["random_states"] *= 2
    torch.save(content, path)
    train(corpus_settings, Stratified(), 3, ckpt_path=path)
    assert "random states of 2 processes, this run has 1" in caplog.text


class Halves(BaseMixer):
    """Makes its weights in torch's default type."""

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        return torch.full((signals.batch_size,), 1.0) / signals.batch_size


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("mixer", [Stratified, Halves, DoReMiOnline, DoGEOnline, LossSeeker])
def test_any_precision_trains_any_mixer(store, corpus_settings, precision, mixer, caplog):
    parameters, trace, _ = train(
        corpus_settings, mixer(), steps=2, batch_size=12, precision=precision
    )
    assert parameters.dtype == PRECISIONS[precision] and parameters.isfinite().all()
    # Losses once rose in 16-true where they fell in the others.
    assert ("set it to bf16-true or 16-mixed" in caplog.text) == (precision == "16-true")
    assert all(weights.dtype == torch.float64 for _, weights in trace)


def test_a_batch_of_fewer_sequences_than_domains_is_warned_of(store, corpus_settings, caplog):
    train(corpus_settings, DoReMiOnline(), 1, batch_size=2)
    assert "DoReMiOnline updates every 1 step(s) of 2 sequences, fewer than the 3" in caplog.text
    caplog.clear()
    train(corpus_settings, DoReMiOnline(), 1, batch_size=2, accumulate_grad_batches=2)
    train(corpus_settings, Stratified(), 1, batch_size=2)
    assert "fewer than" not in caplog.text


RANDOM_RANKS = """
class Saves(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        torch.rand(trainer.global_rank)  # from now on the ranks' states differ
        if trainer.global_step == 3:
            trainer.save_checkpoint("step.ckpt")

resumed = {"ckpt_path": "step.ckpt", "seed": 9}
for name, after, more in (("whole", [Saves()], {}), ("resumed", [Saves()], resumed)):
    more = {"config": {"resid_pdrop": 0.5}, "after": after, **more, **both}
    torch.save(train(settings, Draws(), 6, 8, **more)[0], f"{name}.pt")
"""


@pytest.mark.slow
def test_each_of_two_processes_goes_on_with_its_own_random_numbers(
    store, corpus_settings, tmp_path
):
    """Random states of all ranks are saved and restored, not only those of rank zero."""
    run_on_two_ranks(tmp_path, corpus_settings, RANDOM_RANKS)
    first, second = torch.load(tmp_path / "step.ckpt", weights_only=True)["random_states"]
    assert not torch.equal(first["torch"], second["torch"])
    assert torch.equal(torch.load(tmp_path / "whole.pt"), torch.load(tmp_path / "resumed.pt"))


def fit(data, callbacks, **options):
    """A fit as in one's own script; the model's parameters."""
    seed_everything(1, verbose=False)
    model = LanguageModel(config={**TINY, "vocab_size": 300})
    fit_again(model, data, callbacks, **options)
    return model, torch.cat([p.flatten() for p in model.parameters()]).detach()


def fit_again(model, data, callbacks, **options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    steps = {"max_steps": 6, "max_epochs": -1, "limit_val_batches": 0, **options}
    trainer = Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        use_distributed_sampler=False,
        **dict.fromkeys(quiet, False),
        **steps,
    )
    trainer.fit(model, datamodule=data)
    return trainer


class Memory(LossSeeker):
    """Keeps what it set in ``__init__``."""

    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(3)

    def update(self, signals):
        self.seen = self.seen + signals.domain_loss
        return torch.softmax(self.seen.double(), dim=0)


@pytest.mark.parametrize("mixer", [DoGEOnline, Memory])
def test_another_trainers_fit_starts_draws_and_mixer_anew(store, corpus_settings, caplog, mixer):
    data, ends = DataMixer(mixer(), corpus_settings, 32, 8), []
    for _ in range(2):
        _, parameters = fit(data, [MixingCallback()])
        ends.append((parameters.tolist(), data.sampler.realised.tolist(), data.mixer.updates))
    assert ends[0] == ends[1]
    assert sum(ends[1][1]) == 6 * 8
    assert "its mixer and draws start anew" in caplog.text


def test_a_mixer_that_learns_needs_its_callback(store, corpus_settings):
    with pytest.raises(UserError, match=r"DoGraph would change nothing .*MixingCallback\(\)"):
        fit(DataMixer(DoGraph(clusters=4), corpus_settings, 32, 8), [])
    plain = fit(DataMixer(Stratified(), corpus_settings, 32, 8), [])[1]
    observed = fit(DataMixer(Stratified(), corpus_settings, 32, 8), [MixingCallback()])[1]
    assert torch.equal(plain, observed)


class FirstOnly(BaseMixer):
    """Counts the first sequence of each batch alone."""

    def loss_weights(self, signals):
        return torch.nn.functional.one_hot(torch.tensor(0), signals.batch_size).float()


def test_a_model_has_its_own_loss_back_after_a_fit(store, corpus_settings):
    model, _ = fit(DataMixer(FirstOnly(), corpus_settings, 32, 8), [MixingCallback()])
    other, _ = fit(DataMixer(Stratified(), corpus_settings, 32, 8), [], max_steps=1)
    other.load_state_dict(model.state_dict())
    for each in (model, other):
        fit_again(each, DataMixer(Stratified(), corpus_settings, 32, 8), [])
    for own, fresh in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(own, fresh)


@pytest.mark.parametrize("epochs", [-1, 1, 3])
def test_a_fit_without_a_number_of_steps_is_refused(store, corpus_settings, epochs):
    data = DataMixer(Stratified(), corpus_settings, 32, 8)
    with pytest.raises(UserError, match=r"max_steps=-1.* have no end.*: set max_steps ≥ 1"):
        fit(data, [], max_steps=-1, max_epochs=epochs)


def test_a_sanity_check_gives_no_losses(store, corpus_settings):
    perplexity = DomainPerplexity()
    options = {"max_steps": -1, "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1.0}
    data = DataMixer(Stratified(), corpus_settings, 32, 8)
    fit(data, [perplexity], check_val_every_n_epoch=2, **options)
    assert perplexity.losses == {}


class MeanLoss(LanguageModel):
    """Validates as most Lightning modules do."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return self.token_losses(batch.tokens).mean()


class Silent(LanguageModel):
    """Validates for itself."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return None


def validated(model, settings):
    """Losses by domain of 8 sequences each, in batches of 6."""
    perplexity = DomainPerplexity()
    data = DataMixer(Stratified(), settings, 32, 6, validation_sequences=8)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(accelerator="cpu", callbacks=[perplexity], **quiet)
    trainer.validate(model, datamodule=data, verbose=False)
    return perplexity.losses


def test_a_mean_loss_counts_as_many_sequences_as_it_is_of(store, corpus_settings):
    config = {**TINY, "vocab_size": 300}
    whole, means = LanguageModel(config=config), MeanLoss(config=config)
    means.load_state_dict(whole.state_dict())
    expected = validated(whole, corpus_settings)
    assert validated(means, corpus_settings) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(UserError, match=r"Silent\.validation_step returned NoneType: return"):
        validated(Silent(config=config), corpus_settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 4, "limit_train_batches": 6}, "is 6, no multiple of"),
        ({"overfit_batches": 2}, "every epoch draws new batches"),
    ],
)
def test_epochs_that_would_cut_or_repeat_steps_are_refused(
    store, corpus_settings, options, message
):
    with pytest.raises(UserError, match=message):
        train(corpus_settings, Stratified(), **options)


def test_epochs_of_whole_steps_are_trained(store, corpus_settings):
    options = {"accumulate_grad_batches": 2, "limit_train_batches": 4}
    _, _, data = train(corpus_settings, Stratified(), steps=4, **options)
    assert data.sampler.trained == 8


def test_a_second_fit_of_a_trainer_adds_to_what_counted(store, corpus_settings):
    data, mixing = DataMixer(Stratified(), corpus_settings, 32, 6), MixingCallback()
    model = LanguageModel(config={**TINY, "vocab_size": 300}, warmup=2)
    trainer = fit_again(model, data, [mixing])
    steps = trainer.global_step
    trainer.fit_loop.epoch_loop.max_steps = 2 * steps
    trainer.fit(model, datamodule=data)
    assert data.sampler.trained == 2 * steps
    assert mixing.effective.sum().item() == pytest.approx(2 * steps)


class OwnOptimiser(LanguageModel):
    """Its fourth loss is infinite; its optimiser is not fused."""

    kind = torch.optim.SGD

    def token_losses(self, tokens):
        losses = super().token_losses(tokens)
        return losses * torch.inf if self.training and self.global_step == 3 else losses

    def configure_optimizers(self):
        return self.kind(self.parameters(), lr=1e-3)


class Lion(torch.optim.Optimizer):
    """An optimiser that knows nothing of torch's gradient scalers."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad.sign(), alpha=-group["lr"])
        return loss


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, Lion])
def test_an_optimiser_of_ones_own_skips_a_step_that_is_not_finite(store, corpus_settings, kind):
    torch.manual_seed(0)
    model = type("M", (OwnOptimiser,), {"kind": kind})(config={**TINY, "vocab_size": 300})
    before = torch.cat([each.detach().flatten().clone() for each in model.parameters()])
    data = DataMixer(Stratified(), corpus_settings, 32, 6)
    fit_again(model, data, [MixingCallback()])
    after = torch.cat([each.detach().flatten() for each in model.parameters()])
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    assert model.skipped[0] == 1


def test_pretrained_weights_of_another_tokenizer_are_refused(store, corpus_settings, tmp_path):
    LanguageModel(config={**TINY, "vocab_size": 300}).network.save_pretrained(tmp_path)
    tokenizer = json.loads((store.path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = LanguageModel(pretrained=str(tmp_path))
    fit_again(model, DataMixer(Stratified(), corpus_settings, 32, 8), [], max_steps=1)
    ids = tokenizer["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="gives 2 of the corpus's 300 tokens other ids"):
        fit_again(model, DataMixer(Stratified(), corpus_settings, 32, 8), [], max_steps=1)


def test_pretrained_weights_without_a_tokenizer_are_warned_of(
    store, corpus_settings, tmp_path, caplog
):
    LanguageModel(config={**TINY, "vocab_size": 300}).network.save_pretrained(tmp_path)
    model = LanguageModel(pretrained=str(tmp_path))
    fit_again(model, DataMixer(Stratified(), corpus_settings, 32, 8), [], max_steps=1)
    assert "only if corpus.tokenizer is its own" in caplog.text
