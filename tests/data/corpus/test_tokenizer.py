import pytest
from small_corpora import sentences
from tokenizers import Tokenizer, models

from dograph.data.corpus.tokenizer import (
    end_of_text,
    load,
    make_tokenizer,
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
        make_tokenizer(str(tmp_path / "absent.json"), 300, tmp_path, [])
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
        make_tokenizer("gpt2", 300, tmp_path, [])


def test_a_vocabulary_without_end_of_text_is_refused():
    with pytest.raises(UserError, match="no end-of-text token"):
        end_of_text(Tokenizer(models.WordLevel({"a": 0})))
