"""Domains derived from others: what they hold, and that no validation text leaks into training."""

import base64
import contextlib
import dataclasses
import json

import pytest
from small_corpora import sentences

from dograph.data.corpus.derived import DROPPED, Derivation, read_derivations
from dograph.data.corpus.document import document_hash, hash_number
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.report import closing_table
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.staging import Staging
from dograph.data.corpus.store import Store
from dograph.data.domains import Documents
from dograph.errors import UserError

TEXT = "one two\n  three four five\n" * 200
JUNK = {
    "copy_1": {"from": "notes", "how": "near_copy"},
    "copy_2": {"from": "notes", "how": "near_copy"},
    "shuffled": {"from": "notes", "how": "shuffled_words"},
    "as_base64": {"from": "web", "how": "base64"},
}


@pytest.fixture(scope="module")
def store(small_settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("derived") / "store"
    settings = dataclasses.replace(small_settings, store=str(path), derived=JUNK)
    return prepare(settings, progress=False)


def texts(store, domain, split):
    """The documents of a split, by the store's own tokenizer."""
    documents, tokenizer = Documents(store, domain, split), store.tokenizer()
    return [tokenizer.decode(documents[number].tolist()) for number in range(len(documents))]


def test_shuffled_words_are_the_same_words_in_another_order():
    derivation = Derivation("notes", "shuffled_words")
    shuffled = derivation.apply(TEXT, b"seed")
    assert shuffled.split() != TEXT.split()
    assert sorted(shuffled.split()) == sorted(TEXT.split())
    assert shuffled == derivation.apply(TEXT, b"seed") != derivation.apply(TEXT, b"other")


def test_base64_is_decoded_to_the_text():
    text = Derivation("notes", "base64").apply(TEXT + "é", b"")
    assert base64.b64decode(text).decode() == TEXT + "é"
    assert {len(line) for line in text.splitlines()[:-1]} == {76}


def test_a_near_copy_lacks_few_words_and_no_layout():
    copy = Derivation("notes", "near_copy").apply(TEXT, b"seed")
    lost = 1 - len(copy.split()) / len(TEXT.split())
    assert DROPPED / 2 < lost < 2 * DROPPED
    assert "\n  three" in copy
    assert Derivation("notes", "near_copy").apply("alone", b"18") == "alone"


def test_original_domains_and_tokenizer_are_as_without_derived_ones(store, small_store):
    assert store.tokenizer_hash == small_store.tokenizer_hash
    assert store.fingerprint != small_store.fingerprint
    for entry in small_store.domains:
        assert store.entry(entry.name) == entry


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_is_derived_from_the_same_split_document_by_document(store, split):
    notes, web = (texts(store, name, split) for name in ("notes", "web"))
    assert [base64.b64decode(text).decode() for text in texts(store, "as_base64", split)] == web
    shuffled = texts(store, "shuffled", split)
    assert list(map(sorted, map(str.split, shuffled))) == list(map(sorted, map(str.split, notes)))
    first, second = (texts(store, name, split) for name in ("copy_1", "copy_2"))
    assert first != second  # each loses other words
    for copies in (first, second):
        assert len(copies) == len(notes)  # duplicates of their origin stay
        assert all(
            set(copy.split()) <= set(text.split()) for copy, text in zip(copies, notes, strict=True)
        )
    hashes = store.document_hashes("copy_1", split)
    assert hashes.tolist() == [hash_number(document_hash(text.encode())) for text in first]


def test_manifest_and_table_say_what_domains_are_made_from(store, small_store):
    again = Store.open(store.path)
    assert [entry.name for entry in again.domains] == sorted(["notes", "web", *JUNK])
    assert again.entry("copy_1").derived == Derivation("notes", "near_copy")
    assert again.entry("notes").derived is None
    table = closing_table(store)
    columns = {str(column.header): list(map(str, column.cells)) for column in table.columns}
    assert "base64 of web" in columns["made from"]
    assert "made from" not in [str(column.header) for column in closing_table(small_store).columns]


def test_other_derivations_are_another_store(store, small_settings):
    fewer = {name: JUNK[name] for name in ("copy_1", "copy_2")}
    other = dataclasses.replace(small_settings, store=str(store.path), derived=fewer)
    with pytest.raises(UserError, match="made from other inputs"):
        prepare(other, progress=False)


def test_a_prepared_store_as_the_source_must_hold_them(store, small_store):
    held = CorpusSettings(source=str(store.path), derived=JUNK)
    assert prepare(held, progress=False) == store
    lacking = CorpusSettings(source=str(small_store.path), derived=JUNK)
    with pytest.raises(
        UserError, match=r"corpus\.derived\.as_base64 is base64 of web, which the prep"
    ):
        prepare(lacking, progress=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"from": "notes"}, "corpus.derived.junk lacks 'how': write"),
        ({"how": "base64"}, "corpus.derived.junk lacks 'from': write"),
        ({"from": "notes", "how": "base65"}, "junk.how is 'base65'.*did you mean 'base64'"),
        ({"from": "a", "how": "base64", "hwo": "b"}, "corpus.derived.junk.hwo is an unknown key"),
    ],
)
def test_a_wrong_derivation_names_its_key(values, message):
    with pytest.raises(UserError, match=message):
        read_derivations({"junk": values})


@pytest.mark.parametrize(
    ("derived", "message"),
    [
        ({"x": {"from": "note", "how": "base64"}}, "x.from is 'note': .*did you mean 'notes'"),
        ({"web": {"from": "notes", "how": "base64"}}, "derived.web: .* choose another"),
        ({"x": JUNK["copy_1"], "y": {"from": "x", "how": "base64"}}, "y.from is 'x'.*has the dom"),
    ],
)
def test_a_derivation_is_checked_against_the_source(derived, message, small_corpus):
    with pytest.raises(UserError, match=message):
        prepare(CorpusSettings(source=str(small_corpus), derived=derived), progress=False)


@pytest.mark.parametrize("how", ["shuffled_words", "near_copy"])
def test_text_without_blanks_is_not_derived_by_words(how, tmp_path):
    """Chinese text once came out of ``shuffled_words`` as it was: junk that was none."""
    source = tmp_path / "text"
    source.mkdir()
    lines = [
        json.dumps({"text": f"{number}" + "天地玄黃宇宙洪荒日月盈昃" * 9}) for number in range(40)
    ]
    (source / "zh.jsonl").write_text("\n".join(lines))
    settings = CorpusSettings(
        source=str(source),
        store=str(tmp_path / "store"),
        vocab_size=300,
        derived={"junk": {"from": "zh", "how": how}},
    )
    with pytest.raises(
        UserError, match=rf"junk.how is {how}, but domain 'zh' has 40 words.*base64"
    ):
        prepare(settings, progress=False)
    remedy = {"junk": {"from": "zh", "how": "base64"}}
    store = prepare(dataclasses.replace(settings, derived=remedy), progress=False)
    assert [entry.name for entry in store.domains] == ["junk", "zh"]


def test_an_unsafe_name_is_refused():
    with pytest.raises(UserError, match=r"corpus\.derived: '\.\./x' cannot name a domain"):
        CorpusSettings(derived={"../x": JUNK["copy_1"]})


def test_an_interrupted_preparation_keeps_a_derived_domain(tmp_path):
    def stage():
        with contextlib.closing(Staging(tmp_path, 0.2)) as staging:
            origin = staging.domain(
                "a", lambda: iter(sentences(1, 30)), None, "there", lambda _: None
            )
            return staging.derived("b", Derivation("a", "base64"), origin, done.append)

    done: list[int] = []
    first = stage()
    (part,) = (tmp_path / "staged" / "b" / "train").glob("*.zst")
    written = part.stat().st_mtime_ns
    assert stage() == first
    assert part.stat().st_mtime_ns == written
    assert done == 2 * [first.train.bytes + first.validation.bytes]
