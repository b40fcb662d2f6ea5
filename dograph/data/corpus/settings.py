"""What a user may choose about a corpus."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dograph.errors import UserError, check_range

ENVIRONMENT = "environment"
TRAIN_TOKENIZER = "train"
GPT2_TOKENIZER = "gpt2"

SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text


@dataclass
class CorpusSettings:
    """Where the text comes from, how it becomes tokens and where the tokens go.

    Raises:
        UserError: if a value is out of its range; the message names the field and the value.
    """

    source: str = ENVIRONMENT
    """``environment``, the path of a folder with one folder or file per domain, or of a prepared
    store, which is then used as it is."""

    tokenizer: str = TRAIN_TOKENIZER
    """``train`` (byte-level BPE on this corpus), the path of a ``tokenizer.json``, or ``gpt2``."""

    vocab_size: int = 4096
    """Tokens in a trained vocabulary, at least 257; a loaded tokenizer has its own size."""

    megabytes: float | dict[str, float] | None = None
    """Most text per domain in 10⁶ bytes, one for all or by name; None: all the source offers."""

    text_key: str = "text"
    """Key of a JSONL line, or column of a Parquet file, that holds the text."""

    validation_fraction: float = 0.05
    """Share of documents, chosen by their hash, kept for validation; 0 ≤ share < 1."""

    store: str | None = None
    """Folder of the tokens; None: one per digest in ``$DOGRAPH_CACHE`` or ``~/.cache/dograph``."""

    workers: int = 2
    """Tokenising processes; fixed, so that the store does not depend on the machine."""

    def __post_init__(self) -> None:
        for name in ("source", "tokenizer", "text_key"):
            if not getattr(self, name):
                raise UserError(f"corpus: {name} is empty; name one or leave the key out.")
        if self.vocab_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"corpus: vocab_size is {self.vocab_size}; a byte-level vocabulary needs at least "
                f"{SMALLEST_VOCABULARY}."
            )
        check_range("corpus.validation_fraction", self.validation_fraction, at_least=0, below=1)
        check_range("corpus.workers", self.workers, at_least=1)
        self._check_megabytes()

    def _check_megabytes(self) -> None:
        if self.megabytes is None:
            return
        by_name = self.megabytes if isinstance(self.megabytes, dict) else {"": self.megabytes}
        for domain, cap in by_name.items():
            if not 0 < cap < math.inf:
                key = f"megabytes.{domain}" if domain else "megabytes"
                raise UserError(
                    f"corpus: {key} is {cap}; a cap must be above 0 and finite (or left out)."
                )
