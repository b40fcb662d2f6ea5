"""Bytes of text by tokens, for byte-level and other tokenizers."""

import dataclasses
import json

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.round_trip import RoundTrip
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.tokenizer import END_OF_TEXT
from dograph.evaluation.text_bytes import TextBytes, why_no_bits_per_byte

TEXTS = [f"naïve 你好 🙂 text {number}, tabs\tand  blanks\n" for number in range(30)]


def unigram(path):
    """A tokenizer whose tokens are no bytes."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=[END_OF_TEXT],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["good words and better words"] * 20, trainer)
    tokenizer.save(str(path))
    return str(path)


def prepared(folder, texts, tokenizer="train"):
    (folder / "text").mkdir()
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (folder / "text" / "domain.jsonl").write_text("\n".join(lines))
    settings = CorpusSettings(
        source=str(folder / "text"),
        store=str(folder / "store"),
        tokenizer=tokenizer,
        vocab_size=300,
        validation_fraction=0.5,
    )
    return prepare(settings, progress=False)


def test_every_byte_of_a_byte_level_bpe_counts_once(tmp_path):
    store = prepared(tmp_path, TEXTS)
    counted = TextBytes(store)
    assert counted.of_token is not None
    tokenizer, end = store.tokenizer(), store.end_of_text
    rows = [[end, *tokenizer.encode(text).ids, end] for text in TEXTS]
    assert [int(counted(np.array([row]))[0]) for row in rows] == [len(t.encode()) for t in TEXTS]
    # The first token is not predicted, and a character may end in the middle of a sequence.
    ids = tokenizer.encode("🙂").ids
    assert len(ids) > 1
    parts = [counted(np.array([[end, *ids[:-1]]])), counted(np.array([[end, *ids[-1:]]]))]
    assert sum(int(part[0]) for part in parts) == 4


def test_other_tokenizers_are_decoded(tmp_path):
    texts = [f"good words and better words{' and words' * number}" for number in range(30)]
    store = prepared(tmp_path, texts, unigram(tmp_path / "unigram.json"))
    counted = TextBytes(store)
    assert counted.of_token is None
    tokenizer, end = store.tokenizer(), store.end_of_text
    first, second = (tokenizer.encode(text).ids for text in texts[:2])
    row = np.array([[end, *first, end, *second, end]])
    assert counted(row)[0] == len(texts[0]) + len(texts[1])
    cut = len(tokenizer.decode(first[:1]))
    assert counted(row[:, 1:])[0] == len(texts[0]) + len(texts[1]) - cut


def test_a_special_token_spelt_out_is_text(tmp_path):
    store = prepared(tmp_path, [f"{text} {END_OF_TEXT}" for text in TEXTS])
    tokenizer = store.tokenizer()
    tokenizer.encode_special_tokens = True
    row = np.array([[store.end_of_text, *tokenizer.encode(END_OF_TEXT).ids, store.end_of_text]])
    assert TextBytes(store)(row)[0] == len(END_OF_TEXT)


def trips(store, *shares):
    """The store with other round trips."""
    entries = [
        dataclasses.replace(entry, round_trip=share and RoundTrip(10_000, *share, 5_000, 7))
        for entry, share in zip(store.domains, shares, strict=True)
    ]
    return dataclasses.replace(store, domains=tuple(entries))


def test_bits_per_byte_are_left_out_where_text_is_lost(store):
    whole, most, lost = (10_000, 10_000), (9_950, 9_950), (9_700, 9_700)
    assert why_no_bits_per_byte(trips(store, whole, whole, most)) is None
    reason = why_no_bits_per_byte(trips(store, whole, whole, lost))
    assert "numbers 97.00% (7 of 5,000 tokens are unknown)" in reason
    assert why_no_bits_per_byte(trips(store, None, None, None)) is None  # every byte is a token


def test_bytes_are_those_that_were_tokenised(store):
    row = np.array([[store.end_of_text, *store.tokenizer().encode("cat dog " * 50).ids]])
    longer = TextBytes(trips(store, (10_000, 20_000), (10_000, 9_950), None))
    assert [int(longer(row, name)[0]) for name in ("animals", "code", "numbers")] == [200, 402, 400]
