"""A split's documents one by one, from litdata's files of tokens."""

from __future__ import annotations

import numpy as np

from dograph.data.corpus.manifest import Split
from dograph.data.corpus.store import Store


class Documents:
    """The tokens of each document of a domain and split, without its end of text.

    Args:
        store: the prepared corpus.
        domain: its name.
        split: "train" or "validation".

    Raises:
        UserError: if the store has no such domain, the split is empty, or a file is damaged.
    """

    def __init__(self, store: Store, domain: str, split: Split) -> None:
        chunks = store.chunks(domain, split)
        self._files = store.sealed_chunks(domain, split)
        self._headers = [chunk.header_bytes for chunk in chunks]
        self._type = np.dtype(store.token_type)
        self._chunk_ends = np.cumsum([chunk.dim for chunk in chunks])
        self._ends_file = store.sealed_ends(domain, split)
        self._ends = store.document_ends(domain, split)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """Tokens of the document of an ordinal, counted through the chunks.

        Raises:
            UserError: if a file is damaged.
        """
        self._ends_file.check()
        start = int(self._ends[index - 1]) if index else 0
        chunk = int(np.searchsorted(self._chunk_ends, start, side="right"))
        before = int(self._chunk_ends[chunk - 1]) if chunk else 0
        self._files[chunk].check()
        with self._files[chunk].path.open("rb") as opened:
            opened.seek(self._headers[chunk] + (start - before) * self._type.itemsize)
            return np.fromfile(opened, self._type, int(self._ends[index]) - start - 1)
