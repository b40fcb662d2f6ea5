"""What tokenizers keep of a text, and what `prepare` says about it."""

import dataclasses

import pytest
from small_corpora import write_corpus
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.report import round_trip_note, share_warnings
from dograph.data.corpus.round_trip import RoundTrip, RoundTripMeter, pieces
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.tokenizer import train
from dograph.errors import UserError

TEXT = "Ünïcode Ångström, Tabs\tAND  blanks\nand 漢字 🙂 <|endoftext|>"


def byte_level(normalizer=None):
    tokenizer = train(300, iter([TEXT]))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def unknown_words(**words):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, **words}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60,
        special_tokens=["</s>", "<unk>"],
        unk_token="<unk>",  # noqa: S106
        show_progress=False,
    )
    tokenizer.train_from_iterator(["good words and better words"] * 20, trainer)
    return tokenizer


def measure(tokenizer, *texts):
    return RoundTripMeter(tokenizer, 0)(texts)


def test_a_byte_level_tokenizer_keeps_all_with_or_without_a_decoder():
    size = len(TEXT.encode())
    bare = byte_level()
    bare.decoder = None
    for tokenizer in (byte_level(), bare):
        trip = measure(tokenizer, TEXT, TEXT)
        assert (trip.bytes, trip.kept, trip.decoded, trip.unknown) == (2 * size,) * 3 + (0,)
        assert trip.share == trip.bytes_per_decoded == 1


def test_what_a_normalizer_changes_is_lost():
    steps = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    trip = measure(byte_level(normalizers.Sequence(steps)), "Ünïcode AND")
    assert (trip.bytes, trip.kept, trip.unknown) == (13, 6, 0)  # without Ü, ï, A, N and D
    assert measure(byte_level(normalizers.Lowercase()), "all small").share == 1


def test_unknown_text_is_counted_and_lost():
    trip = measure(unknown_words(the=2), "the cat sees the mouse")
    assert (trip.tokens, trip.unknown, trip.kept) == (5, 3, len("the the"))
    trip = measure(unigram(), "good words", "gut 漢字")
    assert trip.unknown > 0
    assert 10 <= trip.kept < trip.bytes
    assert measure(unigram(), "good words and better words").share == 1


def test_a_long_document_is_measured_at_two_places():
    text = "a " * 3000 + "b " * 3000
    assert "".join(pieces(text)) == "a " * 2000 + "b " * 2000
    assert pieces("short") == ["short"]


def test_the_manifest_and_the_note_say_what_comes_back(small_store):
    for entry in small_store.domains:
        assert entry.round_trip.share == 1
        assert entry.round_trip.bytes > 1000
        assert 0.1 < entry.held_out < 0.4
    assert "all of" in round_trip_note(small_store)
    first, second = small_store.domains
    lossy = dataclasses.replace(first, round_trip=RoundTrip(10_000, 9_999, 9_999, 3_000, 1))
    told = round_trip_note(dataclasses.replace(small_store, domains=(lossy, second)))
    assert "notes 99.99% (1 of 3,000 tokens are unknown)" in told
    assert "web" not in told


def test_a_share_far_from_the_asked_one_is_warned_of(small_store):
    assert share_warnings(small_store, 0.2) == []
    first, second = small_store.domains
    unequal = dataclasses.replace(first, validation_bytes=first.bytes)
    store = dataclasses.replace(small_store, domains=(unequal, second))
    (line,) = share_warnings(store, 0.2)
    assert "'notes': 50.0% of its bytes are held out" in line
    assert share_warnings(store, 0) == []


def test_a_tokenizer_that_keeps_hardly_any_text_is_refused(tmp_path):
    unknown_words(the=2).save(str(tmp_path / "unknown.json"))
    settings = CorpusSettings(
        source=str(write_corpus(tmp_path / "corpus", 20)),
        tokenizer=str(tmp_path / "unknown.json"),
        store=str(tmp_path / "store"),
    )
    with pytest.raises(UserError, match=r"unknown\.json, with which 0% of the text comes back"):
        prepare(settings, progress=False)
