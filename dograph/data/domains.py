"""Tokens as sequences by index, from litdata folders, and whole batches of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from litdata import StreamingDataset, TokensLoader
from litdata.streaming.sampler import ChunkedIndex
from torch.utils.data import Dataset

from dograph.corpus.manifest import Split
from dograph.corpus.store import Store
from dograph.data.batch import Batch
from dograph.errors import UserError


class DomainSequences:
    """The sequences of one domain and split: windows of ``context + 1`` tokens, disjoint.

    Args:
        store: the prepared corpus.
        domain: its name.
        split: "train" or "validation".
        context: tokens that a model sees at once, T; a sequence has T + 1.

    Raises:
        UserError: if the domain has no whole sequence, or a file is damaged.
    """

    def __init__(self, store: Store, domain: str, split: Split, context: int) -> None:
        self.domain, self.split, self.block = domain, split, context + 1
        self._store, self.folder = store, store.folder(domain, split)
        chunks = store.chunks(domain, split)
        self.chunk_tokens = np.array([chunk.dim for chunk in chunks], dtype=np.int64)
        self.chunk_lengths = self.chunk_tokens // self.block
        if self.chunk_lengths.sum() == 0:
            raise UserError(
                f"{self.folder}: domain {domain!r} has {self.chunk_tokens.sum()} {split} tokens, "
                f"fewer than one sequence of data.context + 1 = {self.block}: lower data.context, "
                "add text to the domain or remove it"
            )
        self._first_sequence = np.concatenate([[0], np.cumsum(self.chunk_lengths)])
        self._first_token = np.concatenate([[0], np.cumsum(self.chunk_tokens)])
        self._starts = self._first_sequence[1:-1]
        self._places: list[int] = self._starts.tolist()
        self._ends_file = store.sealed_ends(domain, split)
        self._document_ends = store.document_ends(domain, split)
        self._files = store.sealed_chunks(domain, split)
        self._tokens = StreamingDataset(
            str(self.folder), item_loader=TokensLoader(block_size=self.block), shuffle=False
        )

    def __len__(self) -> int:
        return int(self.chunk_lengths.sum())

    def __getitem__(self, index: int) -> npt.NDArray[np.integer]:
        """(T + 1,) tokens of one sequence.

        Raises:
            UserError: if its chunk is missing or damaged.
        """
        self.check(np.array([index]))
        return self.unchecked(index)

    def check(self, indices: npt.NDArray[np.int64]) -> None:
        """Looks at the files that sequences are in, each once; litdata would wait for a lost one.

        Args:
            indices: (n,) sequence indices.

        Raises:
            UserError: if a chunk or the index is missing or damaged.
        """
        if self._tokens.cache is None:  # litdata is about to read the index once more
            self._store.chunks(self.domain, self.split)
        for chunk in set(np.searchsorted(self._starts, indices, side="right").tolist()):
            self._files[chunk].check()

    def unchecked(self, index: int) -> npt.NDArray[np.integer]:
        """(T + 1,) tokens of one sequence that `check` has just passed."""
        return self._tokens[ChunkedIndex(index, bisect_right(self._places, index))]

    def documents(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n, 2) ordinals, within domain and split, of the first and last document touched.

        Args:
            indices: (n,) sequence indices.

        Raises:
            UserError: if the file of the documents' ends is missing or damaged.
        """
        self._ends_file.check()
        chunk = np.searchsorted(self._first_sequence, indices, side="right") - 1
        start = self._first_token[chunk] + (indices - self._first_sequence[chunk]) * self.block
        ends = np.stack([start, start + self.block - 1], axis=1)
        return np.searchsorted(self._document_ends, ends, side="right")


class MixtureDataset(Dataset[Batch]):
    """Reads whole batches from the domains' sequences.

    Args:
        domains: one per domain, in the order of the weights.
    """

    def __init__(self, domains: Sequence[DomainSequences]) -> None:
        self.domains = list(domains)

    def __len__(self) -> int:
        return sum(len(domain) for domain in self.domains)

    def __getitems__(self, picks: Sequence[tuple[int, int]]) -> Batch:
        """The batch of (domain, index) pairs; torch's loader calls it once a batch."""
        rows = np.array(picks, dtype=np.int64).reshape(-1, 2)
        tokens = np.empty((len(rows), self.domains[0].block), dtype=np.int64)
        documents = np.empty((len(rows), 2), dtype=np.int64)
        for domain in np.unique(rows[:, 0]):
            inside = rows[:, 0] == domain
            self.domains[domain].check(rows[inside, 1])
            documents[inside] = self.domains[domain].documents(rows[inside, 1])
        for row, (domain, index) in enumerate(picks):
            tokens[row] = self.domains[domain].unchecked(index)
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(rows[:, 0].copy()),
            torch.from_numpy(documents),
        )


def as_read(batch: Any) -> Any:
    """Collation for a dataset that already returns whole batches."""
    return batch
