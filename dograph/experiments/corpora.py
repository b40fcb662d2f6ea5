"""Prepared corpora, shared by all stages of an experiment and all jobs of a sweep."""

from __future__ import annotations

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store


class Corpora:
    """Prepares each corpus once, when it is first asked for."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}

    def prepare(self, settings: CorpusSettings) -> Store:
        """The store that the settings describe."""
        key = repr(settings)
        if key not in self._stores:
            self._stores[key] = prepare(settings)
        return self._stores[key]
