import random
import time

import pytest
from small_corpora import sentences
from tokenizers import Tokenizer, models, pre_tokenizers

from dograph.data.corpus.tokenizer import (
    LONGEST_WORD,
    cut_long_words,
    end_of_text,
    get_tokenizer,
    load,
    token_type,
    tokenizer_hash,
    train,
    vocabulary_size,
)
from dograph.errors import UserError


def test_training_gives_the_same_vocabulary_again_and_keeps_every_byte():
    texts = sentences(1, 200)
    one, other = (train(400, iter(texts)) for _ in range(2))
    assert tokenizer_hash(one) == tokenizer_hash(other)
    assert vocabulary_size(one) <= 400
    assert end_of_text(one) == 0
    odd = "ünï©ødé \t\n\n\x07 and 漢字"
    assert one.decode(one.encode(odd).ids) == odd


def test_the_hash_ignores_what_does_not_change_tokens(tmp_path):
    tokenizer = train(300, iter(sentences(1, 20)))
    before = tokenizer_hash(tokenizer)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(tmp_path / "tokenizer.json"), pretty=False)
    assert tokenizer_hash(load(tmp_path / "tokenizer.json")) == before
    assert tokenizer_hash(train(300, iter(sentences(2, 20)))) != before


def test_two_bytes_where_the_vocabulary_fits():
    assert token_type(65_536) == "uint16"
    assert token_type(65_537) == "int32"


def test_a_missing_or_wrong_tokenizer_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json is not a file"):
        get_tokenizer(str(tmp_path / "absent.json"))
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(UserError, match=r"wrong\.json cannot be read"):
        load(tmp_path / "wrong.json")


def test_gpt2_without_a_hub_says_what_else_can_be_done(tmp_path, monkeypatch):
    def unreachable(name):
        raise OSError(f"no route to {name}")

    monkeypatch.setattr(
        "dograph.data.corpus.tokenizer.Tokenizer", type("T", (), {"from_pretrained": unreachable})
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"path of its tokenizer\.json"):
        get_tokenizer("gpt2")


def test_a_vocabulary_without_end_of_text_is_refused():
    with pytest.raises(UserError, match="no end-of-text token"):
        end_of_text(Tokenizer(models.WordLevel({"a": 0})))


WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    "word", ["ACGT" * 50_000, "-" * 200_000, "7" * 200_000, " " * 200_000, "漢字かな" * 50_000]
)
def test_long_words_are_cut_and_text_between_them_is_not(word):
    text = f"A word, {word} and {'x' * LONGEST_WORD} more.\n" * 2
    pieces = [*cut_long_words(text, WORDS)]
    assert "".join(pieces) == text
    longest = max(
        end - start for piece in pieces for _, (start, end) in WORDS.pre_tokenize_str(piece)
    )
    assert longest <= LONGEST_WORD + 1  # with the blank before it
    assert len(pieces) < 3 + 2 * (len(word) / LONGEST_WORD + 2)


@pytest.mark.parametrize(
    "text", ["", *sentences(1, 2), "(a1+" * 5000, "a\x1c" * 5000, "été " * 500]
)
def test_text_without_long_words_is_trained_on_as_it_is(text):
    longest = max((end - at for _, (at, end) in WORDS.pre_tokenize_str(text)), default=0)
    assert ([*cut_long_words(text, WORDS)] == [text]) is (longest <= LONGEST_WORD)


def test_training_on_a_long_word_takes_no_time_squared():
    draw = random.Random(0)
    begin = time.monotonic()
    assert vocabulary_size(train(300, iter(["".join(draw.choices("ACGT", k=300_000))]))) == 300
    assert time.monotonic() - begin < 30  # uncut 30 s and more on an idle core


@pytest.mark.parametrize("dropout", [None, 0.0, 0.3])
def test_a_tokenizer_that_draws_its_tokens_is_refused(tmp_path, dropout):
    tokenizer = train(300, iter(sentences(1, 20)))
    tokenizer.model.dropout = dropout
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    if dropout:
        with pytest.raises(UserError, match=r"model\.dropout is 0\.3.*: set it to null"):
            get_tokenizer(str(path))
    else:
        assert vocabulary_size(get_tokenizer(str(path))) == 300
