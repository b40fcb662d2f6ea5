"""Domains, batches and validation as DataMixer serves them."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from litdata import StreamingDataset, TokensLoader

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store
from dograph.data.data_mixer import DataMixer, evenly_spaced
from dograph.data.domains import DomainSequences, MixtureDataset
from dograph.data.epoch_order import EpochOrder
from dograph.errors import UserError
from dograph.mixers import (
    BaseMixer,
    DoGE,
    DoGraph,
    DoGraphSchedule,
    DomainText,
    Proportional,
    Stratified,
    UniMax,
)


def ready(settings, mixer=None, **options):
    data = DataMixer(mixer, settings, **{"context": 32, "batch_size": 16, **options})
    data.setup()
    return data


def test_sequences_are_the_stored_tokens_in_order(store):
    sequences = DomainSequences(store, "code", "train", context=32)
    assert len(sequences) == sequences.chunk_tokens.sum() // 33
    first, second = sequences[0], sequences[1]
    assert first.shape == (33,)
    assert not np.array_equal(first, second)
    longer = DomainSequences(store, "code", "train", context=65)
    assert np.array_equal(longer[0], np.concatenate([first, second]))


def test_documents_behind_a_sequence_are_those_whose_ends_it_holds(store):
    sequences = DomainSequences(store, "code", "train", context=32)
    for index in range(0, len(sequences), 17):
        first, last = sequences.documents(np.array([index]))[0]
        tokens = sequences[index]
        ends = np.flatnonzero(tokens[:-1] == store.end_of_text)
        assert last - first == len(ends)
    assert sequences.documents(np.array([0]))[0][0] == 0


@pytest.mark.parametrize(("steps", "budget"), [(2, 2 * 3 * 16 * 33), (-1, 0)])
def test_a_mixer_knows_how_many_tokens_the_run_reads(corpus_settings, steps, budget):
    """Steps × accumulation × batch × (context + 1), in any script; 0 for a run without an end."""
    data = DataMixer(None, corpus_settings, 32, 16)
    data.trainer = Trainer(
        max_steps=steps, max_epochs=-1, accumulate_grad_batches=3, accelerator="cpu", logger=False
    )
    data.setup("fit")
    assert data.mixer.token_budget == budget


def test_a_mixer_that_needs_the_length_of_a_run_says_so(corpus_settings):
    with pytest.raises(UserError, match=r"UniMax .* is not known: set trainer\.max_steps"):
        ready(corpus_settings, UniMax())


def test_without_a_trainer_it_begins_as_on_rank_zero_of_many(corpus_settings):
    data = DataMixer(UniMax(), corpus_settings, context=32, batch_size=16)
    data.begin(world_size=2, steps=5)
    assert data.mixer.token_budget == 5 * 2 * 16 * 33
    assert data.sampler.batch_size == data.mixer.batch_size == 2 * 16
    assert len(next(iter(data.sampler))) == 16


def test_a_batch_names_its_domains_and_documents(store, corpus_settings):
    data = ready(corpus_settings)
    batch = next(iter(data.train_dataloader()))
    assert batch.tokens.shape == (16, 33)
    assert batch.tokens.dtype == torch.int64
    assert batch.documents.shape == (16, 2)
    counts = torch.bincount(batch.domain, minlength=3)
    assert counts.min() >= 5
    assert counts.sum() == 16


def test_realised_counts_follow_the_weights_within_one_sequence(store, corpus_settings):
    data = ready(corpus_settings, Proportional())
    loader = iter(data.train_dataloader())
    counts = torch.zeros(3)
    for _ in range(25):
        counts += torch.bincount(next(loader).domain, minlength=3)
    assert (counts - 25 * 16 * data.mixer.weights).abs().max() < 1


def test_an_unseen_domain_is_validated_and_never_drawn(store, corpus_settings):
    data = ready(corpus_settings, Proportional(), target="code", unseen=["code"])
    drawn = {domain for _ in range(40) for domain, _ in data.sampler.draw_batch()}
    assert drawn == {0, 2}
    assert [len(loader) for loader in data.val_dataloader()] == [6, 6, 6]
    assert data.mixer.target == data.target


def test_an_unseen_target_is_probed_on_its_training_split(store, corpus_settings):
    length = len(DomainSequences(store, "code", "train", 32)) - 1  # all but one
    mixer = DoGraphSchedule(measure=120, probe=length)
    data = ready(corpus_settings, mixer, target="code", unseen=["code"])
    assert data.probe_batch(0).domain.tolist() == [1] * length
    assert len({tuple(row) for row in data.probe_batch(0).tokens.tolist()}) == length
    assert mixer.sampling_weights.tolist() == [0.5, 0, 0.5]


class Reader(BaseMixer):
    """Keeps how it was given its text."""

    needs = frozenset({DomainText(20 * 33)})

    def reset(self):
        self.shapes = [tuple(text.shape) for text in self.text]
        self.first = [text[0].tolist() for text in self.text]
        self.last = [text[-1].tolist() for text in self.text]


def test_a_mixer_reads_text_spread_over_every_domain(store, corpus_settings):
    data = ready(corpus_settings, Reader(), target="code", unseen=["code"], cap={"numbers": 5 * 33})
    sequences = data.train_domains
    assert data.mixer.shapes == [(min(20, len(each)), 33) for each in sequences]
    assert data.mixer.shapes[data.domains.index("numbers")] == (5, 33)
    assert data.mixer.first == [each[0].tolist() for each in sequences]
    assert data.mixer.last == [each[len(each) - 1].tolist() for each in sequences]
    assert data.mixer.text == ()  # freed once the mixer is set up


def test_text_of_many_chunks_is_read_from_a_few(two_chunks):
    whole = DomainSequences(two_chunks, "web", "train", 32)
    assert np.array_equal(whole.spread(10**6, 2), np.arange(len(whole)))
    first = int(whole.chunk_lengths[0])
    assert np.array_equal(whole.spread(10**6, 1), np.arange(first))
    capped = DomainSequences(two_chunks, "web", "train", 32, most_tokens=33 * (first + 2))
    capped.chunk_lengths[0] = 0  # as of a chunk too short for a sequence
    assert np.array_equal(capped.spread(2, 1), [first, first + 1])


def test_doge_holds_an_unseen_target_out(store, corpus_settings):
    data = ready(corpus_settings, DoGE(), target="code", unseen=["code", "numbers"])
    assert data.mixer.weights.tolist() == [1, 0, 0]
    assert {domain for _ in range(40) for domain, _ in data.sampler.draw_batch()} == {0}
    assert data.probe_batch(0).domain.tolist() == [1] * 4


def test_a_held_out_mix_is_drawn_by_the_targets_shares(store, corpus_settings):
    target = {"animals": 5, "code": 3}
    data = ready(corpus_settings, DoGE(probe=4), target=target)
    assert [len(held_out) for held_out in data._reserved] == [64, 64, 0]
    probes = [data.probe_batch(step).domain.tolist() for step in range(60)]
    assert {tuple(probe) for probe in probes} == {(0, 0, 0, 1), (0, 0, 1, 1)}
    shares = torch.bincount(torch.tensor(probes).flatten()) / 240
    assert shares.tolist() == pytest.approx([5 / 8, 3 / 8], abs=0.05)
    again = ready(corpus_settings, DoGE(probe=4), target=target)
    assert torch.equal(data.probe_batch(7).tokens, again.probe_batch(7).tokens)
    for length, held_out in ((8, 4), (100, 10)):
        small = ready(corpus_settings, DoGE(probe=4), cap={"animals": length * 33})
        assert len(small._reserved[0]) == held_out
    with pytest.raises(UserError, match=r"animals. has 7 sequences, too few to hold out 4"):
        ready(corpus_settings, DoGE(probe=4), cap={"animals": 7 * 33})


def test_of_a_capped_domain_the_first_sequences_repeat(store, corpus_settings):
    data = ready(corpus_settings, Proportional(), cap={"code": 10 * 33 + 32})
    whole = DomainSequences(store, "code", "train", 32)
    capped = data.train_domains[1]
    assert len(capped) == 10
    assert np.array_equal(capped.tokens(np.arange(10)), whole.tokens(np.arange(10)))
    assert data.mixer.domain_tokens[1] == 10 * 33 + 32
    picks = [data.sampler.orders[1].next() for _ in range(30)]
    for epoch in (picks[:10], picks[10:20], picks[20:]):
        assert sorted(epoch) == list(range(10))
    assert len(data.validation_domains[1]) == len(ready(corpus_settings).validation_domains[1])


def test_a_cap_may_end_inside_any_chunk(two_chunks):
    whole = DomainSequences(two_chunks, "web", "train", 32)
    for count in (1, int(whole.chunk_lengths[0]), int(whole.chunk_lengths[0]) + 1, 10**6):
        capped = DomainSequences(two_chunks, "web", "train", 32, most_tokens=33 * count)
        assert len(capped) == min(count, len(whole))
        last = np.array([0, len(capped) - 1])
        assert np.array_equal(capped.tokens(last), whole.tokens(last))
        order = EpochOrder(capped.chunk_lengths.tolist(), 0, 0)
        assert sorted(order.next() for _ in range(len(capped))) == list(range(len(capped)))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cap": {"cod": 1000}}, r"data\.cap names 'cod'.*'code'"),
        ({"cap": {"code": 32}}, r"data\.cap\.code is 32: it must be ≥ 33"),
        ({"unseen": ["animal"]}, r"data\.unseen names 'animal'.*'animals'"),
        ({"target": "nubmers"}, "target names 'nubmers'.*'numbers'"),
        ({"unseen": ["animals", "code", "numbers"]}, "leave one"),
    ],
)
def test_names_and_caps_that_do_not_fit_are_refused(store, corpus_settings, options, named):
    with pytest.raises(UserError, match=named):
        ready(corpus_settings, **options)


def test_validation_is_fixed_and_spread_over_each_domain(store, corpus_settings):
    data = ready(corpus_settings, validation_sequences=6)
    loaders = data.val_dataloader()
    assert len(loaders) == 3
    for index, loader in enumerate(loaders):
        batches, again = list(loader), list(loader)
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches, again, strict=True))
        assert all((batch.domain == index).all() for batch in batches)
        assert sum(len(batch.tokens) for batch in batches) == 6


def test_ranks_share_validation_evenly():
    def picks(rank):
        return [pick for batch in evenly_spaced(0, 100, 65, 8, rank, 2) for pick in batch]

    assert len(picks(0)) == len(picks(1)) == 33  # so that none waits: rank 1 repeats its last
    assert len(set(picks(0))) == 33 and len(set(picks(1))) == 32
    alone = [pick for batch in evenly_spaced(0, 100, 65, 8) for pick in batch]
    assert {*picks(0), *picks(1)} == set(alone)
    with pytest.raises(UserError, match="validation_sequences"):
        evenly_spaced(0, 100, 1, 8, 0, 2)


def test_a_domain_shorter_than_the_context_is_refused(store):
    with pytest.raises(UserError, match=r"animals.*data.context"):
        DomainSequences(store, "animals", "train", context=10**6)


def test_reading_whole_batches_equals_reading_one_by_one(store):
    domains = [DomainSequences(store, entry.name, "train", 32) for entry in store.domains]
    dataset = MixtureDataset(domains)
    picks = [(2, 5), (0, 1), (2, 0), (1, 7)]
    batch = dataset.__getitems__(picks)
    for row, (domain, index) in enumerate(picks):
        assert np.array_equal(batch.tokens[row].numpy(), domains[domain][index])
        expected = domains[domain].documents(np.array([index]))[0]
        assert np.array_equal(batch.documents[row].numpy(), expected)


@pytest.fixture(scope="module")
def two_chunks(tmp_path_factory):
    """A store whose one domain has two chunks: as many as processes that made it."""
    folder = tmp_path_factory.mktemp("chunks")
    (folder / "text").mkdir()
    with (folder / "text" / "web.jsonl").open("w") as file:
        for number in range(240):
            file.write(json.dumps({"text": f"{number} " + "tensor graph weight " * 500}) + "\n")
    settings = CorpusSettings(str(folder / "text"), vocab_size=300, store=str(folder / "store"))
    return prepare(settings, progress=False)


@pytest.mark.parametrize("mapped", [1, 2])
def test_sequences_are_those_that_litdata_reads(two_chunks, monkeypatch, mapped):
    monkeypatch.setattr("dograph.data.domains.MAPPED_CHUNKS", mapped)
    sequences = DomainSequences(two_chunks, "web", "train", context=32)
    assert len(sequences.chunk_lengths) == 2
    folder = str(two_chunks.folder("web", "train"))
    theirs = StreamingDataset(folder, item_loader=TokensLoader(33), shuffle=False)
    assert len(sequences) == len(theirs)
    indices = np.random.default_rng(0).permutation(len(theirs))[:64]
    expected = np.stack([theirs[int(index)] for index in indices])
    assert np.array_equal(sequences.tokens(indices), expected)
    assert np.array_equal(sequences.tokens(indices[::-1]), expected[::-1])


def test_a_chunk_put_back_is_mapped_anew(store, tmp_path):
    copy = Store.open(shutil.copytree(store.path, tmp_path / "store"))
    sequences = DomainSequences(copy, "code", "train", context=32)
    expected = sequences[3]
    (chunk,) = sequences.folder.glob("chunk*")
    whole = chunk.read_bytes()
    with chunk.open("r+b") as file:  # in place: what is mapped changes with it
        file.write(bytes(len(whole)))
    beside = tmp_path / "beside"
    beside.write_bytes(whole)
    beside.replace(chunk)
    assert np.array_equal(sequences[3], expected)


def test_what_is_sent_to_a_process_holds_no_tokens(store):
    sequences = DomainSequences(store, "code", "train", context=32)
    before = len(pickle.dumps(sequences))
    expected = sequences[3]
    sent = pickle.dumps(sequences)
    assert len(sent) - before < 100  # of some ten thousand tokens
    assert np.array_equal(pickle.loads(sent)[3], expected)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("lookahead", [2, 4])
def test_new_weights_hold_exactly_lookahead_batches_later(corpus_settings, workers, lookahead):
    """In batches served, by processes that have prefetched as much as they may."""
    data = ready(corpus_settings, workers=workers, lookahead=lookahead)
    loader = iter(data.train_dataloader())
    one_hot = [[float(s == domain) for s in range(3)] for domain in range(3)]
    data.sampler.set_weights(one_hot[0])  # holds from batch `lookahead`
    served = []
    for step in range(20):
        served.append(set(next(loader).domain.tolist()))
        data.sampler.mark_trained()
        if step == 9:  # the next batch is number 10
            data.sampler.set_weights(one_hot[1])
    assert served[:lookahead] == [{0, 1, 2}] * lookahead
    assert served[lookahead : 10 + lookahead] == [{0}] * 10
    assert served[10 + lookahead :] == [{1}] * (10 - lookahead)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_and_the_weights_shown_are_the_same_with_workers(corpus_settings, workers):
    def served(count):
        data = ready(corpus_settings, workers=count)
        loader = iter(data.train_dataloader())
        for step in range(12):
            batch = next(loader)
            data.sampler.mark_trained()
            yield batch, data.sampler.weights.tolist()
            data.sampler.set_weights(np.random.default_rng(step).dirichlet([1, 1, 1]))

    shown = []
    for (batch, weights), (expected, their_weights) in zip(served(workers), served(0), strict=True):
        for name in ("tokens", "domain", "documents"):
            assert torch.equal(getattr(batch, name), getattr(expected, name))
        assert weights == their_weights
        shown.append(weights)
    assert shown[0] == shown[4] != shown[5] != shown[11]  # by the weights of 4 batches before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"context": 16}, "context"),
        ({"batch_size": 8}, "batch size"),
        ({"seed": 3}, "seed"),
        ({"draw": "multinomial"}, "draw"),
        ({"mixer": DoGraph(clusters=3)}, "mixer"),
        ({"target": "code"}, "target"),
        ({"unseen": ["code"]}, "unseen"),
        ({"cap": {"code": 1000}}, "cap"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(store, corpus_settings, options, named):
    state = ready(corpus_settings, Stratified()).state_dict()
    with pytest.raises(UserError, match=named):
        ready(corpus_settings, **{"mixer": Stratified(), **options}).load_state_dict(state)


@pytest.mark.parametrize(
    "options",
    [{"context": 0}, {"batch_size": 0}, {"workers": -1}, {"lookahead": -1}, {"workers": 5}],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(UserError):
        DataMixer(None, CorpusSettings(), **options)


def test_a_batch_survives_the_way_through_a_worker(store, corpus_settings):
    batch = next(iter(ready(corpus_settings).train_dataloader()))
    again = pickle.loads(pickle.dumps(batch))
    for name in ("tokens", "domain", "documents"):
        assert torch.equal(getattr(again, name), getattr(batch, name))


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 8), ("draw", "multinomial"), ("mixer", Proportional())]
)
def test_a_setting_that_is_changed_after_set_up_is_refused(store, corpus_settings, name, value):
    data = ready(corpus_settings, Stratified())
    data.train_dataloader()
    setattr(data, name, value)
    with pytest.raises(UserError, match=f"DataMixer.{name} was .* make a new DataMixer"):
        data.train_dataloader()


def test_a_misspelt_draw_and_a_negative_seed_are_refused():
    with pytest.raises(UserError, match=r"data\.draw is 'stratifed': it must be stratified or m"):
        DataMixer(draw="stratifed")
    with pytest.raises(UserError, match=r"data\.seed is -1"):
        DataMixer(seed=-1)
