"""Kernels of texts by their token pairs, against counts by hand."""

import pytest
import torch

from dograph.graph.token_kernel import SMALLEST_ROW
from dograph.graph.token_pairs import pair_kernel, pair_rows

VOCABULARY = 4
ALL = torch.ones(3, dtype=torch.bool)


def text(*sequences):
    return torch.tensor(sequences)


def test_every_pair_has_its_row_where_there_are_enough():
    tokens = text([0, 1, 2, 3, 0], [1, 1, 1, 2, 2])
    rows = pair_rows(tokens, VOCABULARY, 16)
    assert rows.tolist() == [[1, 6, 11, 12], [5, 5, 6, 10]]


def test_hashed_pairs_are_spread_over_all_rows():
    every = torch.arange(200)
    tokens = torch.stack([every.repeat_interleave(200), every.repeat(200)], dim=1)
    rows = pair_rows(tokens, 50_000, 64).flatten()
    assert rows.min() >= 0 and rows.max() < 64
    counts = torch.bincount(rows, minlength=64)  # 625 each
    assert counts.min() > 500 and counts.max() < 750
    assert torch.equal(rows, pair_rows(tokens, 50_000, 64).flatten())


def test_the_kernel_is_that_of_pair_frequencies():
    """Two sequences a domain, one in each half (by the parity of their rows)."""
    texts = [text([0, 1, 1], [0, 0, 1]), text([0, 1, 1], [0, 0, 1]), text([2, 3, 2], [3, 3, 2])]
    kernel, error = pair_kernel(texts, VOCABULARY, 16, ALL)
    frequencies = torch.zeros(3, 16, dtype=torch.float64)
    for domain, sequences in enumerate(texts):
        rows = pair_rows(sequences, VOCABULARY, 16)
        frequencies[domain] = torch.bincount(rows.flatten(), minlength=16).double()
    size = frequencies.square().mean(dim=0)
    scaled = frequencies * (size + SMALLEST_ROW * size.mean()).rsqrt()
    expected = scaled @ frequencies.T
    assert kernel[0, 2] == kernel[1, 2] == expected[0, 2] == 0
    ratio = (kernel[0, 1] / expected[0, 1]).item()
    assert ratio > 0
    off = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(kernel[off], ratio * expected[off], rtol=1e-5, atol=1e-12)
    assert torch.equal(kernel, kernel.T) and (error >= 0).all()


def test_texts_in_pieces_count_like_whole_ones(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(VOCABULARY, (50, 9), generator=generator) for _ in range(3)]
    whole = pair_kernel(texts, VOCABULARY, 8, ALL)
    monkeypatch.setattr("dograph.graph.token_pairs.AT_ONCE", 20)
    for parts, expected in zip(pair_kernel(texts, VOCABULARY, 8, ALL), whole, strict=True):
        torch.testing.assert_close(parts, expected, rtol=1e-5, atol=1e-7)


def test_a_domain_without_text_is_unknown():
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(VOCABULARY, (count, 9), generator=generator) for count in (8, 0, 8)]
    kernel, error = pair_kernel(texts, VOCABULARY, 16, torch.tensor([True, False, True]))
    assert (kernel[1] == 0).all() and (error[1] == 0).all()
    assert kernel[0, 2] > 0


@pytest.mark.parametrize("rows", [16, 4])
def test_permuting_domains_permutes_the_kernel(rows):
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(VOCABULARY, (20, 9), generator=generator) for _ in range(3)]
    kernel, _ = pair_kernel(texts, VOCABULARY, rows, ALL)
    order = [2, 0, 1]
    permuted, _ = pair_kernel([texts[index] for index in order], VOCABULARY, rows, ALL)
    torch.testing.assert_close(permuted, kernel[order][:, order], rtol=1e-5, atol=1e-9)
