"""Convert text to tokens with `datasets` and `tokenizers`, the baseline of `prepare`.

Reads every JSONL file as a split, tokenises with ``map`` in two processes, and writes each split's
tokens, an end-of-text token after each document, to a memory-mapped file of uint16.

    python -m benchmarks.with_datasets FOLDER_OF_JSONL OUTPUT TOKENIZER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer

PROCESSES = 2
SHARDS = 32
"""Slices of a split, written one by one so that memory need not hold all of it."""


class Tokenise:
    """The function for ``map``; each process reads the tokenizer once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._tokenizer: Tokenizer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_tokenizer": None}

    def __call__(self, rows: dict[str, list[str]]) -> dict[str, list[Any]]:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_file(self.path)
            self._tokenizer.encode_special_tokens = True
        end = self._tokenizer.token_to_id("<|endoftext|>")
        encodings = self._tokenizer.encode_batch_fast(rows["text"], add_special_tokens=False)
        ids = [np.array([*encoding.ids, end], dtype=np.uint16) for encoding in encodings]
        return {"ids": ids, "length": [len(row) for row in ids]}


def write(split: Dataset, path: Path) -> None:
    """Write all tokens of a split to a file."""
    tokens = np.memmap(path, np.uint16, "w+", shape=(int(np.sum(split["length"])),))
    place = 0
    for index in range(SHARDS):
        shard = split.shard(SHARDS, index, contiguous=True).with_format("numpy")
        if len(shard):
            ids = np.concatenate(list(shard["ids"]))
            tokens[place : place + len(ids)] = ids
            place += len(ids)
    tokens.flush()


def main(source: str, output: str, tokenizer: str) -> None:
    """Load, tokenise and write every domain."""
    folder = Path(output)
    folder.mkdir(parents=True)
    files = {path.stem: str(path) for path in sorted(Path(source).glob("*.jsonl"))}
    data = load_dataset("json", data_files=files)
    # The default, 1000 documents a batch, is no quicker and takes more memory.
    tokenised = data.map(
        Tokenise(tokenizer),
        batched=True,
        batch_size=64,
        num_proc=PROCESSES,
        remove_columns=["text"],
    )
    for domain, split in tokenised.items():
        write(split, folder / f"{domain}.bin")


if __name__ == "__main__":
    main(*sys.argv[1:])
