"""Bytes of the text behind tokens: losses per byte compare across tokenizers."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from dograph.data.corpus.store import Store

Tokens = npt.NDArray[np.integer]


class TextBytes:
    """Counts the bytes of the text that sequences of tokens predict.

    Exact for a byte-level BPE, in whose vocabulary each character stands for one byte. Other
    tokenizers' sequences are decoded, and the decoded text is counted. The end of text has none.
    """

    def __init__(self, store: Store) -> None:
        self.tokenizer = store.tokenizer()
        self.end = store.end_of_text
        self.of_token = bytes_of_tokens(self.tokenizer, store.vocab_size)
        if self.of_token is not None:
            self.of_token[self.end] = 0

    def __call__(self, tokens: Tokens) -> npt.NDArray[np.int64]:
        """(B,) bytes of all but the first token of each of (B, T + 1) sequences."""
        if self.of_token is not None:
            return self.of_token[tokens[:, 1:]].sum(axis=1)
        return np.array([self._decoded(row) for row in tokens], dtype=np.int64)

    def _decoded(self, row: Tokens) -> int:
        """Bytes of a row's documents, decoded one by one, less those of its first token."""
        pieces = np.split(row, np.flatnonzero(row == self.end) + 1)
        return sum(map(self._length, pieces)) - self._length(row[:1])

    def _length(self, piece: Tokens) -> int:
        text = self.tokenizer.decode(piece[piece != self.end].tolist(), skip_special_tokens=False)
        return len(text.encode())


def bytes_of_tokens(tokenizer: Tokenizer, vocab_size: int) -> npt.NDArray[np.int64] | None:
    """(V,) bytes of every token of a byte-level BPE; None for another kind of tokenizer."""
    parts = json.loads(tokenizer.to_str())
    kinds = [(parts.get(part) or {}).get("type") for part in ("model", "decoder")]
    if kinds != ["BPE", "ByteLevel"]:
        return None
    lengths = np.zeros(vocab_size, dtype=np.int64)
    added = {token["id"] for token in parts["added_tokens"]}
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        lengths[number] = len(token.encode()) if number in added else len(token)
    return lengths
