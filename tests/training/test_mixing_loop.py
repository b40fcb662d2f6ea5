"""A loop of one's own mixes as Lightning's trainer does, and resumes to the bit."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn

from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.mixers import GRAPE, DoGEOnline, DoGraph, DoGraphSchedule, SkillIt, Stratified
from dograph.mixers.limits import Limits
from dograph.signals.sketches import SketchSettings
from dograph.training.mixing_callback import MixingCallback
from dograph.training.mixing_loop import MixingLoop

STEPS = 8
SKETCH = SketchSettings(rank=4, blocks="blocks.1")
MIXERS = {
    "stratified": Stratified,
    "sketches": lambda: DoGraph(clusters=4),
    "domain gradients": DoGEOnline,
    "embeddings": lambda: DoGraphSchedule(interval=2, measure=4, skip=0),
}


class Block(nn.Module):
    """Mixes the past into each token, in a residual."""

    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(2 * width, width), nn.Linear(width, width)

    def forward(self, x):
        past = x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        return x + self.down(torch.relu(self.up(torch.cat([x, past], dim=-1))))


class Network(nn.Module):
    """A causal language model that is none of transformers'."""

    def __init__(self, vocabulary=300, width=16):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, vocabulary)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def token_losses(network, tokens):
    logits = network(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")


class Own(LightningModule):
    """Somebody's own LightningModule, with what a MixingCallback needs."""

    def __init__(self):
        super().__init__()
        self.network = Network()
        self.steps = 0

    def token_losses(self, tokens):
        return token_losses(self.network, tokens)

    def training_step(self, batch, batch_idx):
        return self.reduce_loss(batch, self.token_losses(batch.tokens))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return self.token_losses(batch.tokens)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def made(settings, mixer, seed=1):
    seed_everything(seed, verbose=False)
    return DataMixer(mixer, settings, 16, 12, validation_sequences=8, seed=1), Network()


def own_loop(settings, mixer, steps=STEPS, micro_batches=1, state=None, stop=None):
    """Trains; (network, mixing, losses of all batches, state after ``stop`` steps)."""
    data, network = made(settings, mixer)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    given = (data, network, lambda tokens: token_losses(network, tokens), optimizer, steps)
    mixing = MixingLoop(*given, micro_batches, sketch=SKETCH)
    if state is not None:
        network.load_state_dict(state["network"])
        mixing.load_state_dict(state["mixing"])
    losses, kept = [], None
    for batch in mixing.batches():
        loss = mixing.loss(batch, token_losses(network, batch.tokens)) / micro_batches
        loss.backward()
        mixing.after_backward()
        losses.append(loss.item())
        if len(losses) % micro_batches:
            continue
        optimizer.step()
        optimizer.zero_grad()
        mixing.after_step()
        if mixing.loop.step == stop:
            kept = {"network": network.state_dict(), "mixing": mixing.state_dict()}
            kept = copy.deepcopy(kept)
    return network, mixing, losses, kept


class Losses(Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())


def by_lightning(settings, mixer, micro_batches=1):
    data, _ = made(settings, mixer)
    seed_everything(1, verbose=False)
    module, losses = Own(), Losses()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        accumulate_grad_batches=micro_batches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        callbacks=[MixingCallback(SKETCH), losses],
    )
    trainer.fit(module, datamodule=data)
    return module.network, data.mixer, losses.losses


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_a_loop_of_ones_own_trains_as_lightning(store, corpus_settings, mixer, micro_batches):
    network, mixing, losses, _ = own_loop(corpus_settings, mixer(), micro_batches=micro_batches)
    expected, by_callback, expected_losses = by_lightning(corpus_settings, mixer(), micro_batches)
    assert len(losses) == STEPS * micro_batches
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(mixing.mixer.weights, by_callback.weights)
    torch.testing.assert_close(network.state_dict(), expected.state_dict())


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_a_loop_of_ones_own_resumes_to_the_bit(store, corpus_settings, mixer):
    whole = own_loop(corpus_settings, mixer(), micro_batches=2, stop=5)
    resumed = own_loop(corpus_settings, mixer(), micro_batches=2, state=whole[3])
    assert resumed[2] == whole[2][10:]
    assert torch.equal(resumed[1].effective, whole[1].effective)
    for name, value in whole[0].state_dict().items():
        assert torch.equal(resumed[0].state_dict()[name], value)


def test_validate_gives_the_losses_that_a_trainer_measures(store, corpus_settings):
    network, mixing, *_ = own_loop(corpus_settings, SkillIt(update_every=2))
    losses = mixing.validate()
    module, perplexity = Own(), DomainPerplexity()
    module.network = network
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[perplexity], barebones=False)
    trainer.validate(module, datamodule=mixing.data, verbose=False)
    assert losses == pytest.approx(perplexity.losses)
    told = mixing.mixer.validation_loss
    assert told.tolist() == pytest.approx([losses[name] for name in mixing.data.domains])


def test_a_mixer_that_waits_for_validations_is_told_so(store, corpus_settings, caplog):
    own_loop(corpus_settings, SkillIt(update_every=2), steps=2)
    assert "call validate() more often" in caplog.text


def test_a_loop_that_forgets_a_call_is_told_which(store, corpus_settings):
    data, network = made(corpus_settings, Stratified())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    given = (data, network, lambda tokens: token_losses(network, tokens), optimizer, STEPS)
    mixing = MixingLoop(*given)
    batches = mixing.batches()
    batch = next(batches)
    with pytest.raises(UserError, match="after 0 of micro_batches=1"):
        mixing.after_step()
    with pytest.raises(UserError, match=r"call after_backward\(\)"):
        next(batches)
    mixing = MixingLoop(*given)
    batches = mixing.batches()
    mixing.loss(next(batches), token_losses(network, batch.tokens)).backward()
    mixing.after_backward()
    with pytest.raises(UserError, match=r"call after_step\(\)"):
        next(batches)


def test_a_state_within_a_step_is_refused_and_one_of_other_steps(store, corpus_settings):
    def loop(micro_batches):
        data, network = made(corpus_settings, Stratified())
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        given = (data, network, lambda tokens: token_losses(network, tokens), optimizer, STEPS)
        return network, MixingLoop(*given, micro_batches)

    network, mixing = loop(2)
    state, batch = copy.deepcopy(mixing.state_dict()), next(mixing.batches())
    mixing.loss(batch, token_losses(network, batch.tokens)).backward()
    mixing.after_backward()
    with pytest.raises(UserError, match=r"after 1 of micro_batches=2 .*save after after_step"):
        mixing.state_dict()
    with pytest.raises(UserError, match=r"batches of a step .*micro_batches.* is 2, .* is 3"):
        loop(3)[1].load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_loaded_in_the_midst_of_batches_is_gone_on_from(store, corpus_settings, workers):
    data, network = made(corpus_settings, DoGEOnline())
    data.workers = workers
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    given = (data, network, lambda tokens: token_losses(network, tokens), optimizer, STEPS)
    mixing, served, kept = MixingLoop(*given), [], {}
    for batch in mixing.batches():
        served.append(batch.tokens)
        mixing.loss(batch, token_losses(network, batch.tokens)).backward()
        if len(served) == 5:  # within a step, as one that has gone wrong
            mixing.load_state_dict(kept)
            continue
        mixing.after_backward()
        mixing.after_step()
        if len(served) == 3:
            kept = copy.deepcopy(mixing.state_dict())
    assert len(served) == STEPS + 2 and data.sampler.trained == STEPS
    assert torch.equal(served[3], served[5]) and torch.equal(served[4], served[6])


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_a_validation_before_the_forward_changes_nothing(store, corpus_settings, mixer):
    def trained(validates):
        data, network = made(corpus_settings, mixer())
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        given = (data, network, lambda tokens: token_losses(network, tokens), optimizer, 4)
        mixing = MixingLoop(*given, sketch=SKETCH)
        for batch in mixing.batches():
            if validates:
                mixing.validate()
                with torch.no_grad():
                    losses = token_losses(network, batch.tokens)
                    assert mixing.loss(batch, losses) == losses.mean()
            mixing.loss(batch, token_losses(network, batch.tokens)).backward()
            mixing.after_backward()
            optimizer.step()
            optimizer.zero_grad()
            mixing.after_step()
        return mixing

    plain, validated = trained(False), trained(True)
    assert torch.equal(plain.mixer.weights, validated.mixer.weights)
    assert torch.equal(plain.effective, validated.effective)


def test_a_module_that_validates_by_its_training_loss_trains_as_another(store, corpus_settings):
    class Shared(Own):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return self.training_step(batch, batch_idx)

    fitted = []
    for kind in (Own, Shared):
        data, _ = made(corpus_settings, DoGraph(clusters=4))
        seed_everything(1, verbose=False)
        module, mixing, perplexity = kind(), MixingCallback(SKETCH), DomainPerplexity()
        trainer = Trainer(
            accelerator="cpu",
            max_steps=4,
            max_epochs=-1,
            val_check_interval=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
            callbacks=[mixing, perplexity],
        )
        trainer.fit(module, datamodule=data)
        fitted.append((mixing.effective, perplexity.losses))
    assert torch.equal(fitted[0][0], fitted[1][0])
    assert fitted[0][1] == pytest.approx(fitted[1][1])


def test_epochs_count_what_probes_leave_to_draw(store, corpus_settings):
    data, _ = made(corpus_settings, GRAPE())
    data.limits = Limits(epochs={"animals": 1.0})
    data.begin(1, 200)
    (cap,) = data.mixer.limits.caps
    assert cap.sequences == data.sampler.orders[0].length < len(data.train_domains[0])


def test_a_module_without_what_mixing_reads_is_told_what_to_add(store, corpus_settings):
    class Bare(LightningModule):
        def training_step(self, batch, batch_idx):
            return torch.zeros(())

        def configure_optimizers(self):
            return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)

    data, _ = made(corpus_settings, Stratified())
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, callbacks=[MixingCallback()])
    with pytest.raises(UserError, match=r"Bare: an attribute `network`.*`token_losses\(tokens\)`"):
        trainer.fit(Bare(), datamodule=data)


def test_the_callback_leaves_the_module_as_it_was(store, corpus_settings):
    network, *_ = by_lightning(corpus_settings, DoGraph(clusters=4))
    assert not [hook for each in network.modules() for hook in each._forward_hooks]
