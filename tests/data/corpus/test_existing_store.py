"""Stores that are looked for, and not made."""

import pytest
from tokenizers import Tokenizer, models

from dograph.data.corpus.existing_store import expected_vocabulary, find_prepared
from dograph.data.corpus.settings import CorpusSettings
from dograph.errors import UserError


def test_a_prepared_store_is_opened_by_its_source_and_by_its_path(store, corpus_settings):
    assert find_prepared(corpus_settings) == store
    assert find_prepared(CorpusSettings(source=str(store.path))) == store


def test_a_store_that_is_not_there_is_not_made(corpus_settings, tmp_path):
    own = CorpusSettings(source=corpus_settings.source, store=str(tmp_path / "own"))
    assert find_prepared(own) is None
    assert not list(tmp_path.iterdir())


def test_a_store_of_other_settings_and_a_missing_source_are_refused(store, corpus_settings):
    other = CorpusSettings(source=corpus_settings.source, store=str(store.path), vocab_size=999)
    with pytest.raises(UserError, match="made from other inputs"):
        find_prepared(other)
    with pytest.raises(UserError, match=r"corpus\.source is"):
        find_prepared(CorpusSettings(source="/nowhere"))


def test_a_vocabulary_is_known_before_its_store(tmp_path):
    Tokenizer(models.BPE({"a": 0, "b": 1, "</s>": 6}, [])).save(str(tmp_path / "own.json"))
    assert expected_vocabulary(CorpusSettings(vocab_size=700)) == 700
    assert expected_vocabulary(CorpusSettings(tokenizer="gpt2")) == 50257
    assert expected_vocabulary(CorpusSettings(tokenizer=str(tmp_path / "own.json"))) == 7
