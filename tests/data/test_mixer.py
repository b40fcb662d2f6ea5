"""Domains, batches and validation as DataMixer serves them."""

import pickle

import numpy as np
import pytest
import torch

from dograph.corpus.settings import CorpusSettings
from dograph.data.domains import DomainSequences, MixtureDataset
from dograph.data.mixer import DataMixer, EvenlySpaced
from dograph.errors import UserError
from dograph.mixers import DoGraph, Proportional, Stratified


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
        return [pick for batch in EvenlySpaced(0, 100, 65, 8, rank, 2) for pick in batch]

    assert len(picks(0)) == len(picks(1)) == 32
    assert not set(picks(0)) & set(picks(1))
    with pytest.raises(UserError, match="validation_sequences"):
        EvenlySpaced(0, 100, 1, 8, 0, 2)


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


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"context": 16}, "context"),
        ({"batch_size": 8}, "batch size"),
        ({"seed": 3}, "seed"),
        ({"draw": "multinomial"}, "draw"),
        ({"mixer": DoGraph(clusters=3)}, "mixer"),
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
