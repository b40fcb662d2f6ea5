"""Paths below a home directory, and what is said to a user who has none."""

import os
import pwd

import pytest

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import RecipeFile
from dograph.files.home import cache, expand_home


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, no DOGRAPH_CACHE, and no entry in the list of users, as in some containers."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("DOGRAPH_CACHE", raising=False)

    def missing(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", missing)


def test_the_cache_is_named_where_there_is_no_home(homeless, corpus_folder, monkeypatch, tmp_path):
    settings = CorpusSettings(source=str(corpus_folder), vocab_size=300)
    with pytest.raises(UserError, match=r"corpus\.store.*DOGRAPH_CACHE"):
        prepare(settings, progress=False)
    monkeypatch.setenv("DOGRAPH_CACHE", str(tmp_path))  # the remedy
    assert cache() == tmp_path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("corpus.source", "~/text"),
        ("corpus.store", "~/store"),
        ("corpus.tokenizer", "~/tokenizer.json"),
        ("corpus.source", "~nobody_of_that_name/text"),
        ("runs", "~/runs"),
    ],
)
def test_a_home_that_is_missing_is_named_with_its_key(homeless, small_recipe, key, value):
    with pytest.raises(UserError, match=rf"^{key} is {value}: ~\w* is no user's home"):
        recipe = check(RecipeFile(small_recipe("homeless"), [f"{key}={value}"]).compose())
        prepare(recipe.corpus, progress=False)


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home("~/text", "corpus.source") == tmp_path / "text"
    monkeypatch.setenv("DOGRAPH_CACHE", "~/cache")
    assert cache() == tmp_path / "cache"
    monkeypatch.setenv("DOGRAPH_CACHE", "")
    assert cache() == tmp_path / ".cache" / "dograph"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_named(monkeypatch, corpus_folder, tmp_path):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("DOGRAPH_CACHE", str(tmp_path / "cache"))
    settings = CorpusSettings(source=str(corpus_folder), vocab_size=300)
    with pytest.raises(UserError, match=r"get permission for it or set corpus\.store"):
        prepare(settings, progress=False)
    tmp_path.chmod(0o700)
