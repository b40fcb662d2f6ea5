"""A split's documents one by one, from litdata's files of tokens."""

from __future__ import annotations

import numpy as np

from dograph.corpus.chunks import read_chunks
from dograph.corpus.store import Split, Store


class Documents:
    """The tokens of each document of a domain and split, without its end of text.

    Args:
        store: the prepared corpus.
        domain: its name.
        split: "train" or "validation".

    Raises:
        UserError: if the store has no such domain, or the split is empty.
    """

    def __init__(self, store: Store, domain: str, split: Split) -> None:
        folder = store.folder(domain, split)
        chunks = read_chunks(folder)
        self._files = [folder / chunk["filename"] for chunk in chunks]
        self._type = np.dtype(store.token_type)
        self._chunk_ends = np.cumsum([chunk["dim"] for chunk in chunks])
        self._ends = store.document_ends(domain, split)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """Tokens of the document of an ordinal, counted through the chunks."""
        start = int(self._ends[index - 1]) if index else 0
        chunk = int(np.searchsorted(self._chunk_ends, start, side="right"))
        file = self._files[chunk]
        before = int(self._chunk_ends[chunk - 1]) if chunk else 0
        with file.open("rb") as opened:
            documents = int(np.fromfile(opened, np.uint32, 1)[0])
            header = 4 * (documents + 2)  # their number, and one offset more than that
            opened.seek(header + (start - before) * self._type.itemsize)
            return np.fromfile(opened, self._type, int(self._ends[index]) - start - 1)
