"""Text → tokens on disk: readers, the environment corpus, tokenizers and `prepare`."""

from dograph.corpus.prepare import prepare
from dograph.corpus.settings import CorpusSettings
from dograph.corpus.store import DomainEntry, Store

__all__ = ["CorpusSettings", "DomainEntry", "Store", "prepare"]
