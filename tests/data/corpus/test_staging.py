import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpora import sentences

from dograph.data.corpus.document import document_hash, hash_number, is_validation
from dograph.data.corpus.staging import Staging, part_path, read_part
from dograph.errors import UserError


def stage(folder, domains, fraction=0.05, cap=None):
    with contextlib.closing(Staging(folder, fraction)) as staging:
        return [
            staging.domain(name, lambda texts=texts: iter(texts), cap, "there", lambda _: None)
            for name, texts in domains.items()
        ]


def staged_texts(folder, domain, split):
    count = domain.split(split).parts
    where = folder / "staged" / domain.name / split
    return [text for number in range(count) for text in read_part(part_path(where, number))]


def test_duplicates_are_dropped_within_and_across_domains(tmp_path):
    first, second = sentences(1, 20), sentences(2, 20)
    domains = stage(tmp_path, {"a": [*first, *first], "b": [*first, *second, "  \n"]}, fraction=0)
    assert staged_texts(tmp_path, domains[0], "train") == first
    assert staged_texts(tmp_path, domains[1], "train") == second


def test_the_split_follows_the_hash_and_nothing_else(tmp_path):
    texts = sentences(3, 2000, words=5)
    forward, backward = tmp_path / "forward", tmp_path / "backward"
    for folder, order in ((forward, texts), (backward, texts[::-1])):
        folder.mkdir()
        (domain,) = stage(folder, {"a": order})
        held = staged_texts(folder, domain, "validation")
        assert sorted(held) == sorted(
            text for text in texts if is_validation(document_hash(text.encode()), 0.05)
        )
        assert 60 <= len(held) <= 140


@given(st.binary(min_size=16, max_size=16), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_larger_fraction_holds_out_a_superset(digest, one, other):
    low, high = sorted((one, other))
    assert is_validation(digest, high) or not is_validation(digest, low)
    assert not is_validation(digest, 0)


def test_hashes_are_in_the_order_of_the_parts(tmp_path):
    (domain,) = stage(tmp_path, {"a": sentences(4, 300)})
    for split in ("train", "validation"):
        stored = np.fromfile(tmp_path / "staged" / "a" / split / "hashes", "<u8")
        texts = staged_texts(tmp_path, domain, split)
        assert [int(number) for number in stored] == [
            hash_number(document_hash(text.encode())) for text in texts
        ]
        assert domain.split(split).documents == len(texts)


@given(st.integers(1, 5000))
@settings(deadline=None)  # it writes files
def test_a_cap_is_kept_but_for_a_first_document(tmp_path_factory, cap):
    folder = tmp_path_factory.mktemp("cap")
    (domain,) = stage(folder, {"a": ["x" * 900 + str(n) for n in range(9)]}, fraction=0, cap=cap)
    assert domain.train.bytes <= max(cap, 901)
    assert domain.train.documents == max(1, min(9, cap // 901))


@pytest.mark.parametrize("fraction", [0.01, 0.98])
def test_a_tiny_domain_has_both_splits(tmp_path, fraction):
    (domain,) = stage(tmp_path, {"a": ["one", "two", "three"]}, fraction=fraction)
    assert {domain.train.documents, domain.validation.documents} == {1, 2}


def test_an_empty_domain_and_a_single_document_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'a' holds no new text \(2 empty\): there"):
        stage(tmp_path, {"a": ["", "\n"]})
    with pytest.raises(UserError, match="single document"):
        stage(tmp_path, {"a": ["alone"]})
    with pytest.raises(UserError, match=r"single document.* raise corpus\.megabytes, or set"):
        stage(tmp_path, {"a": ["alone", "one more, beyond the cap"]}, cap=10)


def test_an_interrupted_domain_is_staged_afresh(tmp_path):
    texts = sentences(5, 50)

    def breaking():
        yield from texts[:30]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), contextlib.closing(Staging(tmp_path, 0)) as staging:
        staging.domain("a", breaking, None, "there", lambda _: None)
    (domain,) = stage(tmp_path, {"a": texts}, fraction=0)
    assert staged_texts(tmp_path, domain, "train") == texts


def test_half_surrogates_become_text(tmp_path):
    (domain,) = stage(tmp_path, {"a": ["broken \ud800 pair"]}, fraction=0)
    assert staged_texts(tmp_path, domain, "train") == ["broken ? pair"]


def test_a_domain_killed_before_its_marker_is_staged_afresh(tmp_path):
    domains = {"a": sentences(6, 50), "b": sentences(7, 50)}
    before = stage(tmp_path, domains)
    (tmp_path / "staged" / "b.json").unlink()
    assert stage(tmp_path, domains) == before


def test_few_large_documents_lose_no_more_text_than_asked(tmp_path):
    texts = [" ".join(map(str, range(start, start + 12_000))) for start in (0, 20_000)]
    (domain,) = stage(tmp_path / "one", {"a": texts})
    (tmp_path / "other").mkdir()
    (same,) = stage(tmp_path / "other", {"a": texts[::-1]})
    size = domain.train.bytes + domain.validation.bytes
    assert size == sum(len(text) for text in texts)
    assert domain.validation.bytes / size == pytest.approx(0.05, rel=0.1)
    train, held = (staged_texts(tmp_path / "one", domain, s) for s in ("train", "validation"))
    assert sorted([train[0] + held[0], train[1]]) == sorted(texts) or sorted(
        [train[0], train[1] + held[0]]
    ) == sorted(texts)
    assert staged_texts(tmp_path / "other", same, "validation") == held


def test_a_large_document_that_is_held_out_by_its_hash_is_trained_on(tmp_path):
    small = sentences(8, 300)
    large = next(
        text
        for text in (f"{number} " + "word " * 50_000 for number in range(1000))
        if is_validation(document_hash(text.encode()), 0.05)
    )
    (domain,) = stage(tmp_path, {"a": [*small, large]})
    held = staged_texts(tmp_path, domain, "validation")
    assert 0.025 < domain.validation.bytes / (domain.train.bytes + domain.validation.bytes) < 0.1
    assert large not in held
    by_hash = [text for text in small if is_validation(document_hash(text.encode()), 0.05)]
    assert set(by_hash) <= set(held)
