"""Signals of a real run: excess losses, domain gradients, accumulation, two processes."""

import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from test_mixing_callback import TINY, train
from two_ranks import run_on_two_ranks

from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.files.atomic import write_json
from dograph.files.run_dir import PROVENANCE
from dograph.mixers import (
    GRAPE,
    BatchSignals,
    DoGE,
    DoGEOnline,
    DoGraphSchedule,
    DoReMi,
    DoReMiOnline,
    Probe,
    Sketch,
    Stratified,
)
from dograph.mixers.doremi import exponentiated_gradient
from dograph.signals.batch_signals import TokenGradients, join
from dograph.signals.domain_gradients import DomainGradientSums
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.training.checkpoint_reader import load_reference
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback

FROZEN = {"learning_rate": 1e-12, "final_learning_rate": 1e-12}


@pytest.fixture(scope="module")
def reference(store, corpus_settings, tmp_path_factory):
    """Checkpoint of a few steps of the tiny model."""
    path = tmp_path_factory.mktemp("reference") / "reference.ckpt"
    seed_everything(7, verbose=False)
    data = DataMixer(None, corpus_settings, 32, 16, validation_sequences=8, seed=1)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=5,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        callbacks=[MixingCallback()],
    )
    trainer.fit(LanguageModel(config={**TINY, "vocab_size": 300}), datamodule=data)
    trainer.save_checkpoint(path)
    return str(path)


class Remembers(DoReMi):
    """Keeps the signals of all optimiser steps."""

    not_saved = frozenset({"all_seen"})

    def update(self, signals: BatchSignals):
        self.__dict__.setdefault("all_seen", []).append(signals)
        return super().update(signals)


def first_batch_and_model(corpus_settings, mixer=None):
    """The batch and the model with which ``train`` begins."""
    data = DataMixer(mixer, corpus_settings, 32, 16, validation_sequences=8, seed=1)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    seed_everything(1, verbose=False)
    return batch, LanguageModel(config={**TINY, "vocab_size": 300})


def test_the_excess_is_clipped_token_by_token(store, corpus_settings, reference):
    mixer = Remembers(reference)
    trace = train(corpus_settings, mixer, steps=1)[1]
    batch, model = first_batch_and_model(corpus_settings)
    frozen = LanguageModel.load_from_checkpoint(reference, weights_only=True)
    with torch.no_grad():
        excess = (model.token_losses(batch.tokens) - frozen.token_losses(batch.tokens)).clamp(min=0)
    signals = mixer.all_seen[-1]
    assert torch.equal(signals.domain, batch.domain)
    assert torch.allclose(signals.excess_loss, excess.mean(dim=1), atol=1e-5)
    # Domain by domain over tokens, and the published update.
    scores = torch.stack([excess[batch.domain == s].mean() for s in range(3)]).double()
    expected = exponentiated_gradient(torch.full((3,), 1 / 3).double(), scores, 1.0, 1e-3)
    assert torch.allclose(trace[0][1], expected, atol=1e-6)


def test_a_reference_equal_to_the_model_gives_no_excess(store, corpus_settings, tmp_path):
    seed_everything(1, verbose=False)
    model = LanguageModel(config={**TINY, "vocab_size": 300})
    same = load_reference_of(model, tmp_path)
    tokens = torch.randint(0, 300, (4, 33))
    assert torch.equal(same.token_losses(tokens), model.token_losses(tokens))
    assert not any(parameter.requires_grad for parameter in same.parameters())


def load_reference_of(model, folder):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "model.ckpt")
    return load_reference(folder / "model.ckpt", model.vocab_size, context=32)


def test_references_that_do_not_fit_are_refused(store, corpus_settings, reference, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_reference(tmp_path / "none.ckpt", 300, 32)
    with pytest.raises(UserError, match="takes 32 tokens"):
        load_reference(reference, 300, 64)
    with pytest.raises(UserError, match="has 300 tokens"):
        load_reference(reference, 301, 32)
    (tmp_path / "broken.ckpt").write_bytes(b"nothing that torch knows")
    with pytest.raises(UserError, match="no checkpoint"):
        load_reference(tmp_path / "broken.ckpt", 300, 32)
    with pytest.raises(UserError, match="needs a reference"):
        train(corpus_settings, DoReMi(""), steps=1)


def test_the_exact_kernel_is_that_of_the_batch(store, corpus_settings):
    """DoGE's kernel of a real batch and its probe, against a backward of each mean loss."""
    signals = []

    class Looks(DoGE):
        def update(self, batch):
            signals.append(batch)
            return super().update(batch)

    _, _, data = train(corpus_settings, Looks("exact", probe=20), steps=1)
    batch, model = first_batch_and_model(corpus_settings, DoGE(probe=20))
    parts = [batch.tokens[batch.domain == index] for index in range(3)]
    rows = []
    for tokens in (*parts, data.probe_batch(0).tokens):
        model.zero_grad()
        model.token_losses(tokens).mean().backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    expected = torch.stack(rows) @ torch.stack(rows).T
    assert torch.allclose(signals[-1].domain_kernel, expected[:3, :3], rtol=1e-3)
    assert torch.allclose(signals[-1].probe_products, expected[3], rtol=1e-3)


def test_alignments_are_those_of_sequences_outside_of_the_batch(store, corpus_settings):
    """GRAPE's products, squares and losses against a backward of each mean loss."""
    found = []

    class Looks(GRAPE):
        def update(self, batch):
            found.append(batch.alignment)
            return super().update(batch)

    mixer, given = Looks(probe=20, update_every=1), {"target": {"code": 1, "animals": 1}}
    _, _, data = train(corpus_settings, mixer, steps=1, unseen=["code"], **given)
    _, model = first_batch_and_model(corpus_settings)
    sources, targets = data.source_batch(0), data.probe_batch(0)
    gradients, losses = torch.zeros(2, 3, sum(map(torch.numel, model.parameters()))), torch.zeros(3)
    for side, batch in enumerate((sources, targets)):
        for index in batch.domain.unique().tolist():
            model.zero_grad()
            loss = model.token_losses(batch.tokens[batch.domain == index]).mean()
            loss.backward()
            parts = [parameter.grad.flatten() for parameter in model.parameters()]
            gradients[side, index] = torch.cat(parts)
            losses[index] = loss.detach() if side else 0
    alignment = found[-1]
    assert torch.allclose(alignment.products, gradients[0] @ gradients[1].T, rtol=1e-3)
    assert torch.allclose(alignment.source_squares, gradients[0].square().sum(dim=1), rtol=1e-3)
    assert torch.allclose(alignment.target_squares, gradients[1].square().sum(dim=1), rtol=1e-3)
    assert torch.allclose(alignment.target_loss, losses, rtol=1e-4)
    assert sorted(set(sources.domain.tolist())) == [0, 2] and len(sources.domain) == 40


def test_sources_are_read_where_they_are_trained_on(store, corpus_settings):
    data = DataMixer(GRAPE(probe=3), corpus_settings, 32, 16, seed=1, target="code")
    data.setup()
    assert [len(reserved) for reserved in data._reserved] == [0, 24, 0]
    held_out = {tuple(data.train_domains[1][place].tolist()) for place in data._reserved[1]}
    for step in range(20):
        batch = data.source_batch(step)
        assert batch.domain.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert not held_out & {tuple(row.tolist()) for row in batch.tokens[3:6]}
    assert torch.equal(data.source_batch(5).tokens, data.source_batch(5).tokens)
    assert not torch.equal(data.source_batch(5).tokens, data.source_batch(6).tokens)


@pytest.mark.parametrize("gradients", ["exact", "sketch"])
def test_probes_leave_the_batchs_own_backward_alone(store, corpus_settings, monkeypatch, gradients):
    """With losses alike DoGE, live or not, trains as stratified sampling of as many sequences."""
    monkeypatch.setattr(DoGE, "loss_weights", lambda self, signals: torch.full((16,), 1 / 16))
    monkeypatch.setattr(DoGEOnline, "update", lambda self, signals: self.weights)
    plain = Stratified()
    plain.needs = {Probe(16 * 4, 4, by_target=True)}
    expected = train(corpus_settings, plain, steps=4)[0]
    assert torch.allclose(train(corpus_settings, DoGE(gradients), steps=4)[0], expected, atol=1e-6)
    online = DoGEOnline(gradients, "mix")
    assert torch.equal(train(corpus_settings, online, steps=4)[0], expected)


@pytest.mark.parametrize("gradients", ["exact", "sketch"])
def test_online_doge_scores_by_a_target_that_it_never_trains_on(store, corpus_settings, gradients):
    mixer = DoGEOnline(gradients, mu=1e-4, floor=0.1)
    _, _, data = train(corpus_settings, mixer, steps=8, target="code", unseen=["code"])
    assert data.sampler.realised[1] == mixer.weights[1] == 0
    assert not torch.allclose(mixer.weights[0], mixer.weights[2], atol=1e-3)
    assert mixer.weights[[0, 2]].min() >= 0.05


@pytest.mark.parametrize(
    "build",
    # The learning rate is 1e-12, and so is what a score is divided by.
    [DoReMi, lambda _: DoGE("exact", mu=1e-11), lambda _: DoGE("sketch", mu=1e-11)],
    ids=["doremi", "exact", "sketch"],
)
def test_the_update_over_micro_batches_is_that_of_the_whole_batch(
    store, corpus_settings, reference, build
):
    """With a frozen model, so that only the mixer moves: the same weights at every step."""

    def weights(**options):
        trace = train(corpus_settings, build(reference), steps=4, model=FROZEN, **options)[1]
        return torch.stack([weights for _, weights in trace])

    whole = weights(batch_size=16)
    parts = weights(batch_size=4, accumulate_grad_batches=4)[3::4]
    assert torch.allclose(whole, parts, atol=1e-6)
    assert not torch.allclose(whole[0], whole[-1], atol=1e-5)


def test_micro_batches_together_weigh_their_losses_as_one_batch(store, corpus_settings, reference):
    """A proxy that cannot move trains the same model, however its batch is divided."""
    still = {"step_size": 0.0, "smoothing": 0.0}
    prior = {"animals": 0.5, "code": 0.25, "numbers": 0.25}
    whole = train(corpus_settings, DoReMi(reference, **still, prior=prior), batch_size=16, steps=3)
    parts = train(
        corpus_settings,
        DoReMi(reference, **still, prior=prior),
        batch_size=4,
        accumulate_grad_batches=4,
        steps=3,
    )
    assert torch.allclose(whole[0], parts[0], atol=1e-5)


def test_online_weights_move_what_is_drawn(store, corpus_settings):
    mixer = DoReMiOnline(step_size=20.0, floor=0.1)
    _, _, data = train(corpus_settings, mixer, steps=12)
    assert not torch.allclose(mixer.weights, torch.full((3,), 1 / 3).double(), atol=0.02)
    assert data.sampler.realised.max() > data.sampler.realised.min() + 6


def test_domain_gradients_need_no_more_memory_than_they_say():
    parameters = [torch.zeros(10, requires_grad=True), torch.zeros(3)]
    sums = DomainGradientSums(parameters, 5)
    sums.add(torch.tensor([4]), lambda rows: parameters[0].sum().expand(len(rows)))
    assert sums._sums.shape == (5, 10)


def schedule(**options):
    return DoGraphSchedule(**{"interval": 2, "measure": 4, "skip": 0, "probe": 2, **options})


class Probes(Stratified):
    """Looks at sketches of held-out sequences with every step's signals."""

    needs = frozenset({Sketch(), Probe(held_out=8, per_update=2)})
    not_saved = frozenset({"seen"})

    def update(self, signals):
        self.seen = signals
        return self.weights


def test_held_out_sequences_are_never_trained_on_and_probes_hold_no_others(store, corpus_settings):
    data = DataMixer(Probes(), corpus_settings, 32, 16, seed=1)
    data.setup()
    lengths = [len(domain) for domain in data.train_domains]
    batches = sum(lengths) // 16 * 3  # every domain is passed through at least once
    drawn = {pick for _ in range(batches) for pick in data.sampler.draw_batch()}
    assert data.sampler.orders[0].epoch >= 1
    for domain, length in enumerate(lengths):
        indices = {index for other, index in drawn if other == domain}
        assert len(indices) == length - 8
        assert not indices & set(data._reserved[domain])
        documents = data.train_domains[domain].documents(np.array(data._reserved[domain]))
        assert len({first for first, _ in documents.tolist()}) >= 6  # not all of one document
    probes = [data.probe_batch(step) for step in range(40)]
    assert all(probe.domain.tolist() == [0, 0, 1, 1, 2, 2] for probe in probes)
    last = data.train_domains[0]
    held_out = {tuple(last[place].tolist()) for place in data._reserved[0]}
    found = {tuple(row.tolist()) for probe in probes for row in probe.tokens[:2]}
    assert found == held_out
    assert torch.equal(data.probe_batch(5).tokens, data.probe_batch(5).tokens)


def test_a_domain_too_small_to_hold_out_from_is_named(store, corpus_settings):
    mixer = Probes()
    mixer.needs = frozenset({Probe(held_out=10**6, per_update=1)})
    with pytest.raises(UserError, match=r"domain .animals. has .*too few to hold out 1000000"):
        DataMixer(mixer, corpus_settings, 32, 16).setup()
    unseen = {"target": "animals", "unseen": ["animals"]}
    with pytest.raises(UserError, match=r"domain .animals. has .*too few to hold out 1000000"):
        DataMixer(schedule(probe=10**6), corpus_settings, 32, 16, **unseen).setup()


def test_only_what_the_target_is_made_of_is_probed_and_held_out(store, corpus_settings):
    data = DataMixer(Probes(), corpus_settings, 32, 16, seed=1, target="code")
    data.setup()
    assert [len(reserved) for reserved in data._reserved] == [0, 8, 0]
    assert data.probe_batch(0).domain.tolist() == [1, 1]


def test_the_schedule_holds_nothing_out_of_what_it_trains_on(store, corpus_settings):
    data = DataMixer(schedule(), corpus_settings, 32, 16, seed=1, target="code")
    data.setup()
    assert data._reserved == [[], [], []]
    assert data.probe_batch(0) is None


@pytest.mark.parametrize("probe", [0, 9])
def test_probes_that_make_no_sense_are_refused(store, corpus_settings, probe):
    mixer = Probes()
    mixer.needs = frozenset({Probe(held_out=8, per_update=probe)})
    with pytest.raises(UserError, match=f"probes {probe} of 8 held-out"):
        DataMixer(mixer, corpus_settings, 32, 16).setup()


def test_a_probe_is_the_sketch_of_the_held_out_sequences(store, corpus_settings):
    mixer = Probes()
    _, _, data = train(corpus_settings, mixer, steps=1)
    _, model = first_batch_and_model(corpus_settings)
    sketcher = SequenceSketcher(model.network, SketchSettings(rank=4))
    forward = sketcher.record()
    losses = model.token_losses(data.probe_batch(0).tokens).mean(dim=1)
    assert torch.allclose(mixer.seen.probe_sketch, forward.sketch(losses), atol=1e-6)
    assert torch.equal(mixer.seen.probe_domain, data.probe_batch(0).domain)
    assert mixer.seen.probe_gradients is None


class Looks(DoGraphSchedule):
    """Keeps the signals of all optimiser steps."""

    not_saved = DoGraphSchedule.not_saved | {"seen"}

    def step(self, signals):
        self.__dict__.setdefault("seen", []).append(signals)
        return super().step(signals)


def token_gradients(model, tokens):
    """(B, T, d) gradients of every sequence's mean loss at the outputs of the embedding layer."""
    found = []
    embedding = model.network.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda *given: found.append(given[2]))
    losses = model.token_losses(tokens).mean(dim=1)
    handle.remove()
    return torch.autograd.grad(losses.sum(), found[0])[0]


@pytest.mark.parametrize("parts", [1, 4])
def test_gradients_at_the_embeddings_are_those_of_the_steps_sequences(
    store, corpus_settings, parts
):
    """Of weighted losses, over micro-batches too; probes are of the unseen domain alone."""
    mixer = Looks(interval=1, measure=2, skip=0, probe=2, rank=32)
    target = {"target": "code", "unseen": ["code"]}
    options = {"batch_size": 16 // parts, "accumulate_grad_batches": parts, **target}
    _, _, data = train(corpus_settings, mixer, steps=3, **options)
    first = mixer.seen[0]
    _, model = first_batch_and_model(corpus_settings)
    read, probe = first.token_gradients, first.probe_gradients
    assert torch.equal(read.domain, first.domain) and len(read.domain) == 16
    assert set(read.domain.tolist()) == {0, 2}
    for domain, row in zip(read.domain.tolist(), read.tokens.tolist(), strict=True):
        sequences = data.train_domains[domain]
        assert any(sequences[place][:-1].tolist() == row for place in range(len(sequences)))
    assert probe.domain.tolist() == first.probe_domain.tolist() == [1, 1]
    held_out = data.probe_batch(0).tokens
    assert torch.equal(probe.tokens, held_out[:, :-1])
    torch.testing.assert_close(
        probe.gradients, token_gradients(model, held_out), rtol=1e-3, atol=1e-7
    )
    assert first.probe_sketch is None and first.sketch is None
    assert [each.token_gradients is None for each in mixer.seen] == [False, False, True]
    assert [each.probe_gradients is None for each in mixer.seen] == [False, False, True]


def test_gradients_at_the_embeddings_are_exact(store, corpus_settings):
    mixer = Looks(interval=1, measure=1, skip=0, rank=32)
    train(corpus_settings, mixer, steps=1)
    batch, model = first_batch_and_model(corpus_settings)
    read = mixer.seen[0].token_gradients
    assert torch.equal(read.tokens, batch.tokens[:, :-1])
    assert torch.equal(read.domain, batch.domain)
    expected = token_gradients(model, batch.tokens)
    torch.testing.assert_close(read.gradients, expected, rtol=1e-3, atol=1e-7)


def test_micro_batches_gradients_are_joined():
    def part(domain, value):
        domain = torch.tensor(domain)
        tokens = torch.full((len(domain), 3), value)
        read = TokenGradients(domain, tokens, torch.full((len(domain), 3, 2), float(value)))
        return BatchSignals(0, domain, torch.ones(len(domain)), token_gradients=read)

    joined = join([part([0, 1], 5), part([2, 1], 7)]).token_gradients
    assert joined.domain.tolist() == [0, 1, 2, 1]
    assert joined.tokens[:, 0].tolist() == [5, 5, 7, 7]
    assert joined.gradients[:, 0, 0].tolist() == [5, 5, 7, 7]
    without = BatchSignals(0, torch.tensor([0]), torch.ones(1))
    assert join([without, without]).token_gradients is None


def test_reading_gradients_changes_nothing_but_the_draws(store, corpus_settings, monkeypatch):
    """A schedule whose weights stay trains as stratified sampling of the same sequences does."""
    monkeypatch.setattr(DoGraphSchedule, "update", lambda self, signals: self.weights)
    unseen = {"target": "code", "unseen": ["code"]}
    scheduled = train(corpus_settings, schedule(), steps=7, **unseen)
    plain = train(corpus_settings, Stratified(), steps=7, **unseen)
    assert torch.equal(scheduled[0], plain[0])


FOUR_MIXERS = """
mixers = {"doremi": DoReMi(%r), "schedule": schedule()}
mixers |= {name: DoGE(name) for name in ("exact", "sketch")}
for name, mixer in mixers.items():
    found = train(settings, mixer, steps=5, batch_size=8, **both)
    torch.save(found[:2], f"{name}{found[2].sampler.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_update_as_one(store, corpus_settings, reference, tmp_path):
    """Two real processes with half the batch each: the same scores, weights and model."""
    run_on_two_ranks(tmp_path, corpus_settings, FOUR_MIXERS % reference)
    mixers = {"doremi": DoReMi(reference), "schedule": schedule()}
    for name, mixer in (mixers | {name: DoGE(name) for name in ("exact", "sketch")}).items():
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in range(2))
        alone = train(corpus_settings, mixer, steps=5, batch_size=16)
        for (_, one), (_, other), (_, weights) in zip(first[1], second[1], alone[1], strict=True):
            assert torch.equal(one, other), name
            assert torch.allclose(one, weights, atol=1e-4), name
        assert torch.allclose(first[0], alone[0], atol=1e-3), name


def test_a_reference_of_another_tokenizer_is_refused(store, corpus_settings, reference, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "final.ckpt"
    path.parent.mkdir(parents=True)
    shutil.copyfile(reference, path)
    provenance = path.parents[1] / PROVENANCE
    write_json(provenance, {"tokenizer": store.tokenizer_hash})
    train(corpus_settings, DoReMi(str(path)), steps=1)
    write_json(provenance, {"tokenizer": "another of as many tokens"})
    with pytest.raises(UserError, match="trained with tokenizer another of as many tokens"):
        train(corpus_settings, DoReMi(str(path)), steps=1)
