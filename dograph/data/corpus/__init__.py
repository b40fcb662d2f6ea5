"""Text → tokens on disk: readers, the environment corpus, tokenizers and `prepare`."""

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import DomainEntry, Store

__all__ = ["CorpusSettings", "DomainEntry", "Store", "prepare"]
