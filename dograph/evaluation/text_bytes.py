"""Bytes of the text behind tokens: losses per byte compare across tokenizers."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from dograph.data.corpus.report import kept_share
from dograph.data.corpus.round_trip import LOSSLESS, reading
from dograph.data.corpus.store import Store

Tokens = npt.NDArray[np.integer]


class TextBytes:
    """Counts the bytes of the text that sequences of tokens predict.

    Exact for a byte-level BPE, in whose vocabulary each character stands for one byte. Other
    tokenizers' sequences are decoded, and the decoded text is counted. The end of text has none.
    Where the decoded text is longer or shorter than what was tokenised, the count is scaled by what
    `prepare` measured.
    """

    def __init__(self, store: Store) -> None:
        self.tokenizer = reading(store.tokenizer())
        self.scales = {
            entry.name: entry.round_trip.bytes_per_decoded if entry.round_trip else 1.0
            for entry in store.domains
        }
        self.end = store.end_of_text
        self.of_token = bytes_of_tokens(self.tokenizer, store.vocab_size)
        if self.of_token is not None:
            self.of_token[self.end] = 0

    def __call__(self, tokens: Tokens, domain: str | None = None) -> npt.NDArray[np.int64]:
        """(B,) bytes of all but the first token of each of (B, T + 1) sequences of a domain.

        None: of no domain in particular, whose bytes are as many as the decoded text's.
        """
        if self.of_token is not None:
            sizes = self.of_token[tokens[:, 1:]].sum(axis=1)
        else:
            sizes = np.array([self._decoded(row) for row in tokens], dtype=np.int64)
        scale = 1 if domain is None else self.scales[domain]
        return sizes if scale == 1 else np.rint(sizes * scale).astype(np.int64)

    def _decoded(self, row: Tokens) -> int:
        """Bytes of a row's documents, decoded one by one, less those of its first token."""
        pieces = np.split(row, np.flatnonzero(row == self.end) + 1)
        return sum(map(self._length, pieces)) - self._length(row[:1])

    def _length(self, piece: Tokens) -> int:
        text = self.tokenizer.decode(piece[piece != self.end].tolist(), skip_special_tokens=False)
        return len(text.encode())


def why_no_bits_per_byte(store: Store) -> str | None:
    """Why losses per byte of this store's text would mislead; None: they would not.

    A model of what a tokenizer leaves of a text does not predict the text: with unknown tokens
    alone it would need 0 bits per byte.
    """
    trips = {entry.name: entry.round_trip for entry in store.domains}
    lossy = [
        f"{name} {kept_share(trip)}"
        for name, trip in trips.items()
        if trip is not None and trip.share < LOSSLESS
    ]
    if lossy:
        return f"the tokenizer loses text; of a sample, this share comes back: {', '.join(lossy)}"
    if None in trips.values() and not _keeps_every_byte(store):
        return f"{store.path} does not say what the tokenizer keeps of its text: prepare it again"
    return None


def _keeps_every_byte(store: Store) -> bool:
    tokenizer = store.tokenizer()
    return tokenizer.normalizer is None and bytes_of_tokens(tokenizer, store.vocab_size) is not None


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
