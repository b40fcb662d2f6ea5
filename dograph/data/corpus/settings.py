"""Settings of a corpus: its text, tokenizer and store."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dograph.data.corpus.derived import Derivation, read_derivations
from dograph.data.corpus.manifest import check_domain_name
from dograph.errors import UserError, check_range, check_whole

ENVIRONMENT = "environment"
TRAIN_TOKENIZER = "train"
GPT2_TOKENIZER = "gpt2"

SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text


@dataclass
class CorpusSettings:
    """Where the text comes from, how it becomes tokens and where the tokens go."""

    source: str = ENVIRONMENT
    """``environment``, the path of a folder with one folder or file per domain, or the path of a
    prepared store, which is used as it is."""

    tokenizer: str = TRAIN_TOKENIZER
    """``train`` (byte-level BPE on this corpus), the path of a ``tokenizer.json``, or ``gpt2``."""

    vocab_size: int = 4096
    """Tokens in a trained vocabulary, ≥ 257; a loaded tokenizer has its own size."""

    levels: int = 1
    """How many levels of the source's folders name domains, ≥ 1: with 2, ``web/news`` is a domain
    below ``web``. What lies deeper is a domain's text."""

    megabytes: float | dict[str, float] | None = None
    """Most text per domain in 10⁶ bytes, one cap for all or by name; None: the source's own."""

    text_key: str = "text"
    """Key of a JSON line, or column of a Parquet file, that holds the text; ``content.text`` is the
    key ``text`` within ``content``."""

    skip_bad_rows: bool = False
    """Leave out, and count, rows without text instead of stopping at the first: no key, no text,
    no JSON object, no UTF-8."""

    derived: dict[str, dict[str, str]] = field(default_factory=dict)
    """Further domains made from the source's, ``{NAME: {from: DOMAIN, how: HOW}}``, with HOW one of
    ``shuffled_words``, ``base64`` and ``near_copy``."""

    validation_fraction: float = 0.05
    """Share of documents, chosen by their hash, that is held out for validation; in [0, 1)."""

    store: str | None = None
    """Folder of the tokens; None: a folder in ``$DOGRAPH_CACHE`` or ``~/.cache/dograph``."""

    workers: int = 2
    """Tokenising processes. The store depends on the number, so it is not the machine's cores."""

    def __post_init__(self) -> None:
        for name in ("source", "tokenizer", "text_key"):
            if not getattr(self, name):
                raise UserError(f"corpus.{name} is empty: give one or leave the key out")
        check_whole("corpus.vocab_size", self.vocab_size, at_least=SMALLEST_VOCABULARY)
        check_range("corpus.validation_fraction", self.validation_fraction, at_least=0, below=1)
        check_whole("corpus.workers", self.workers, at_least=1)
        check_whole("corpus.levels", self.levels, at_least=1)
        caps = self.megabytes if isinstance(self.megabytes, dict) else {"": self.megabytes}
        for domain, cap in caps.items():
            if cap is not None:
                key = f"corpus.megabytes.{domain}".removesuffix(".")
                check_range(key, cap, above=0, below=math.inf)
        for domain in self.derivations():
            check_domain_name("corpus.derived", domain)

    def derivations(self) -> dict[str, Derivation]:
        """``derived``, checked, by the domains' names, sorted."""
        return read_derivations(self.derived)
