"""A split's tokens as sequences, as documents and as batches, read from litdata's files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from dograph.data.batch import Batch
from dograph.data.corpus.manifest import Split
from dograph.data.corpus.store import Store
from dograph.errors import UserError

MAPPED_CHUNKS = 2
"""Chunks of a domain and split that are open at once; bounds the number of file descriptors."""


def evenly(length: int, count: int) -> npt.NDArray[np.int64]:
    """(min(count, length),) indices below ``length``, evenly spaced from the first to the last."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(np.int64)


class DomainSequences:
    """The sequences of one domain and split: disjoint windows of ``context + 1`` tokens.

    With ``most_tokens`` only the first whole sequences in the store's order that fit into so many.
    A domain without a whole sequence, and a missing or damaged file, is a `UserError`, also later.
    """

    def __init__(
        self,
        store: Store,
        domain: str,
        split: Split,
        context: int,
        most_tokens: int | None = None,
    ) -> None:
        self.domain, self.split, self.block = domain, split, context + 1
        self.folder = store.folder(domain, split)
        chunks = store.chunks(domain, split)
        self.chunk_tokens = np.array([chunk.dim for chunk in chunks], dtype=np.int64)
        self.chunk_lengths = self.chunk_tokens // self.block
        if self.chunk_lengths.sum() == 0:
            raise UserError(
                f"{self.folder}: domain {domain!r} has {self.chunk_tokens.sum()} {split} tokens, "
                f"fewer than one sequence of data.context + 1 = {self.block}: lower data.context, "
                "add text to the domain or move it out of the corpus"
            )
        whole = np.concatenate([[0], np.cumsum(self.chunk_lengths)])
        most = whole[-1] if most_tokens is None else most_tokens // self.block
        self._first_sequence = np.minimum(whole, most)
        self.chunk_lengths = np.diff(self._first_sequence)
        first_token = np.concatenate([[0], np.cumsum(self.chunk_tokens)])
        # Tokens at chunks' ends that fill no sequence, up to each chunk.
        self._skipped = first_token - self._first_sequence * self.block
        self._in_window = np.array([0, self.block - 1])
        self._ends_file = store.ends_file(domain, split)
        self._document_ends = np.asarray(store.document_ends(domain, split))
        self._files = store.chunk_files(domain, split)
        self._headers = [chunk.header_bytes for chunk in chunks]
        self._type = np.dtype(store.token_type).newbyteorder("<")
        self._mapped: dict[int, npt.NDArray[np.integer]] = {}

    def __len__(self) -> int:
        return int(self._first_sequence[-1])

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a mapped file would copy all of it.
        return {**self.__dict__, "_mapped": {}}

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        """(T + 1,) tokens of a sequence."""
        return self.tokens(np.array([index]))[0]

    def tokens(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n, T + 1) tokens of sequences, given their (n,) indices."""
        chunks = self._chunks(indices)
        rows = np.empty((len(indices), self.block), dtype=np.int64)
        for chunk in set(chunks.tolist()):
            inside = chunks == chunk
            rows[inside] = self._windows(chunk)[indices[inside] - self._first_sequence[chunk]]
        return rows

    def spread(self, count: int, most_chunks: int) -> npt.NDArray[np.int64]:
        """(≤ count,) indices of evenly spaced sequences, from evenly spaced chunks of too many.

        Reading one sequence of a chunk first reads the whole chunk, to check it.
        """
        chunks = np.flatnonzero(self.chunk_lengths)
        chunks = chunks[evenly(len(chunks), most_chunks)]
        ends = np.cumsum(self.chunk_lengths[chunks])
        places = evenly(int(ends[-1]), count)
        of_place = ends.searchsorted(places, side="right")
        return places + (self._first_sequence[chunks + 1] - ends)[of_place]

    def documents(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n, 2) ordinals, within domain and split, of (n,) sequences' first and last document."""
        self._ends_file.check()
        start = indices * self.block + self._skipped[self._chunks(indices)]
        return self._document_ends.searchsorted(start[:, None] + self._in_window, side="right")

    def _chunks(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self._first_sequence.searchsorted(indices, side="right") - 1

    def _windows(self, chunk: int) -> npt.NDArray[np.integer]:
        """(sequences, T + 1) tokens of a chunk, mapped from its file, which is checked first.

        An epoch goes through a domain chunk by chunk, so that chunks are seldom mapped again.
        """
        file = self._files[chunk]
        if file.check() or chunk not in self._mapped:
            self._mapped.pop(chunk, None)
            if len(self._mapped) == MAPPED_CHUNKS:
                del self._mapped[next(iter(self._mapped))]
            shape = (int(self.chunk_lengths[chunk]), self.block)
            mapped = np.memmap(file.path, self._type, "r", self._headers[chunk], shape)
            self._mapped[chunk] = np.asarray(mapped)  # a plain array is quicker to index
        return self._mapped[chunk]


class Documents:
    """The documents of one domain and split, each as its tokens without the end of text.

    A domain that the store lacks, an empty split and a damaged file are `UserError`s.
    """

    def __init__(self, store: Store, domain: str, split: Split) -> None:
        chunks = store.chunks(domain, split)
        self._files = store.chunk_files(domain, split)
        self._headers = [chunk.header_bytes for chunk in chunks]
        self._type = np.dtype(store.token_type)
        self._chunk_ends = np.cumsum([chunk.dim for chunk in chunks])
        self._ends_file = store.ends_file(domain, split)
        self._ends = store.document_ends(domain, split)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> npt.NDArray[np.integer]:
        """Tokens of a document, given its ordinal."""
        self._ends_file.check()
        start = int(self._ends[index - 1]) if index else 0
        chunk = int(np.searchsorted(self._chunk_ends, start, side="right"))
        before = int(self._chunk_ends[chunk - 1]) if chunk else 0
        self._files[chunk].check()
        with self._files[chunk].path.open("rb") as file:
            file.seek(self._headers[chunk] + (start - before) * self._type.itemsize)
            return np.fromfile(file, self._type, int(self._ends[index]) - start - 1)


class MixtureDataset(Dataset[Batch]):
    """Reads whole batches of the domains' sequences; domains stand in the order of the weights."""

    def __init__(self, domains: Sequence[DomainSequences]) -> None:
        self.domains = list(domains)

    def __len__(self) -> int:
        return sum(len(domain) for domain in self.domains)

    def __getitems__(self, picks: Sequence[tuple[int, int]]) -> Batch:
        """The batch of these (domain, index) pairs; torch's loader calls this once a batch."""
        rows = np.array(picks, dtype=np.int64).reshape(-1, 2)
        domains, indices = rows.T.copy()
        tokens = np.empty((len(rows), self.domains[0].block), dtype=np.int64)
        documents = np.empty((len(rows), 2), dtype=np.int64)
        for domain in set(domains.tolist()):
            inside = np.flatnonzero(domains == domain)
            tokens[inside] = self.domains[domain].tokens(indices[inside])
            documents[inside] = self.domains[domain].documents(indices[inside])
        return Batch(
            torch.from_numpy(tokens), torch.from_numpy(domains), torch.from_numpy(documents)
        )


def as_read(batch: Any) -> Any:
    """Collate a dataset that returns whole batches: change nothing."""
    return batch
