"""Fixtures that the tests of the folder share."""

from pathlib import Path

import pytest
from small_corpora import write_corpus

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "small")


@pytest.fixture(scope="session")
def small_settings(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> CorpusSettings:
    store = tmp_path_factory.mktemp("stores") / "small"
    return CorpusSettings(
        source=str(small_corpus), vocab_size=300, validation_fraction=0.2, store=str(store)
    )


@pytest.fixture(scope="session")
def small_store(small_settings: CorpusSettings) -> Store:
    return prepare(small_settings, progress=False)
