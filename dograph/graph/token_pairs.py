"""The kernel of domains' texts, by gradients of a model of token pairs (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dograph.graph.token_kernel import TokenKernel
from dograph.signals.batch_signals import TokenGradients

_MULTIPLIER = -7046029254386353131
"""2⁶⁴ over the golden ratio, odd, as a signed integer: Fibonacci hashing."""
AT_ONCE = 2**20
"""Tokens that are counted together."""


def pair_rows(tokens: Tensor, vocab_size: int, rows: int) -> Tensor:
    """(n, T) int64 rows in [0, rows) of each pair of neighbours in (n, T + 1) tokens.

    Every pair has a row of its own where there are enough; else a hash shares rows out.

    Args:
        tokens: each in [0, vocab_size).
        vocab_size: number of tokens.
        rows: number of rows, a power of two.
    """
    pairs = tokens[:, :-1] * vocab_size + tokens[:, 1:]
    if vocab_size**2 <= rows:
        return pairs
    bits = rows.bit_length() - 1
    return (pairs * _MULTIPLIER >> (64 - bits)) & (rows - 1)


def pair_kernel(
    text: Sequence[Tensor], vocab_size: int, rows: int, scaled_by: Tensor
) -> tuple[Tensor, Tensor]:
    """(S, S) float64 kernel of domains' token pairs and its standard error; zero where unknown.

    A model of pairs has a logit for each pair of tokens. Before it has learnt anything, the
    gradient of a text's loss is, up to what all texts share, minus the frequency of each pair; so
    the kernel is that of gradients (``TokenKernel``), of one number a row.

    Args:
        text: of each of S domains, (n_s, T + 1) tokens; none for an unknown domain.
        vocab_size: number of tokens.
        rows: rows of the model's table, a power of two.
        scaled_by: (S,) bool, the domains whose mean square brings rows to one size.
    """
    kernel = TokenKernel(len(text))
    for index, sequences in enumerate(text):
        for part in sequences.split(max(AT_ONCE // max(sequences.shape[1], 1), 1)):
            if len(part):
                pairs = pair_rows(part, vocab_size, rows)
                domain = torch.full((len(part),), index)
                gradients = -torch.ones(*pairs.shape, 1)
                kernel.add(TokenGradients(domain, pairs, gradients), rows)
    kernel.close()
    return kernel.kernel(scaled_by)
