"""Domain names of a recipe, refused before anything is prepared."""

import pytest

from dograph.cli.main import main


@pytest.mark.parametrize(
    "change", ["target=nosuch", "data.unseen=[nosuch]", "data.cap={nosuch: 99}"]
)
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_an_unknown_domain_is_refused_before_the_corpus_is_prepared(
    small_recipe, tmp_path, capsys, change, check
):
    path, store = small_recipe("small"), tmp_path / "store"
    assert main(["run", str(path), change, f"corpus.store={store}", *check]) == 2
    assert "names 'nosuch', not a domain of the corpus" in capsys.readouterr().err
    assert not list(tmp_path.glob("store*"))


def test_domains_are_those_of_the_source_the_store_and_the_derived(
    small_recipe, store, tmp_path, capsys
):
    path, other = str(small_recipe("small")), f"corpus.store={tmp_path / 'store'}"
    derived = "corpus.derived={noisy: {from: code, how: shuffled_words}}"
    assert main(["run", path, "target=code", other, "--check"]) == 0
    assert main(["run", path, "target=noisy", other, derived, "--check"]) == 0
    prepared = [f"corpus.source={store.path}", "corpus.store=null"]
    assert main(["run", path, "target=nosuch", *prepared, "--check"]) == 2
    assert main(["run", path, "target=nosuch", "corpus.source=gone", "--check"]) == 0
    capsys.readouterr()


def test_stages_are_checked_too(small_recipe, capsys):
    stages = "stages: {proxy: {}, main: {target: nosuch}}\n"
    assert main(["run", str(small_recipe("small", more=stages)), "--check"]) == 2
    assert "names 'nosuch'" in capsys.readouterr().err
