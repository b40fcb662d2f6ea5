"""The held-out share of few, large or unequal documents, whatever their order."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dograph.data.corpus.document import cut_end, document_hash
from dograph.data.corpus.split import SHORTEST_END, choose_by_size, is_near


def documents(*sizes):
    return [(document_hash(str(number).encode()), size) for number, size in enumerate(sizes)]


def held_out(sizes, fraction):
    return [choose_by_size(sizes, fraction).bytes_of(*document) for document in sizes]


UNEQUAL = [int(random.Random(1).lognormvariate(8, 2)) + 1 for _ in range(40)]


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(
    "sizes",
    [
        [63_998, 14_891],  # a book in two pieces
        [2_000_000, 2_000_000],
        [64_000] * 19 + [3_000],
        [1_000_000] + [1_000] * 50,
        [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
        UNEQUAL,
    ],
)
def test_about_the_asked_share_of_the_bytes_is_held_out(sizes, fraction):
    held = held_out(documents(*sizes), fraction)
    assert is_near(sum(held), sum(sizes), fraction)
    assert sum(0 < end < size for end, size in zip(held, sizes, strict=True)) <= 1
    # The small documents are not all held out because a large one is not.
    assert sum(end > 0 for end in held) <= 2 * fraction * len(sizes) + 2


def test_whole_documents_are_held_out_where_they_are_small_enough():
    for sizes in ([3_000] * 10, [900] * 7, [5_000] * 100):
        held = held_out(documents(*sizes), 0.1)
        assert set(held) == {0, sizes[0]}
        assert is_near(sum(held), sum(sizes), 0.1)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30), st.floats(0.001, 0.99), st.data())
def test_any_order_gives_the_same_two_splits_with_text_in_both(sizes, fraction, data):
    given_ones = documents(*sizes)
    held = sum(held_out(given_ones, fraction))
    assert 0 < held < sum(sizes)
    assert choose_by_size(given_ones, fraction) == choose_by_size(
        data.draw(st.permutations(given_ones)), fraction
    )


@given(st.text(min_size=1), st.integers(SHORTEST_END, 2 * SHORTEST_END))
def test_the_end_of_a_document_is_text_and_nothing_is_lost(piece, size):
    text = (piece * (4 * SHORTEST_END // len(piece.encode()) + 1)).encode()
    head, end = cut_end(text, size)
    assert head + end == text
    assert head.decode()
    assert 0.7 * size <= len(end.decode().encode()) <= 1.3 * size + 4
    lines = ("a line of words\n" * 1000).encode()
    assert cut_end(lines, size)[1].startswith(b"a line")
