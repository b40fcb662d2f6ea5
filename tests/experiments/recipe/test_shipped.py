"""Recipes are found by path, and shipped ones by name; a file of the user's own comes first."""

from pathlib import Path

import pytest

from dograph.errors import UserError
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.recipe.shipped import find_recipe, shipped_recipes

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_recipes_are_shipped():
    assert list(shipped_recipes().values()) == sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", ["uniform_gpt2", "uniform_gpt2.yaml"])
def test_a_shipped_recipe_is_found_by_its_name(name):
    file = RecipeFile(Path(name))
    assert file.path == ROOT / "recipes" / "uniform_gpt2.yaml"
    assert file.compose().values["name"] == "uniform_gpt2"


def test_a_file_in_this_folder_comes_first_and_is_named(elsewhere, capsys):
    own = elsewhere / "uniform_gpt2.yaml"
    own.write_text("seed: 7\n")
    assert find_recipe(Path("uniform_gpt2")) == Path("uniform_gpt2.yaml")
    assert "using uniform_gpt2.yaml of this folder, not the shipped" in capsys.readouterr().err
    assert find_recipe(Path("uniform_gpt2.yaml")) == Path("uniform_gpt2.yaml")
    assert capsys.readouterr().err == ""
    assert RecipeFile(Path("uniform_gpt2")).compose().values["seed"] == 7


def test_a_folder_of_the_name_is_no_recipe(elsewhere):
    (elsewhere / "uniform_gpt2").mkdir()
    assert find_recipe(Path("uniform_gpt2")) == ROOT / "recipes" / "uniform_gpt2.yaml"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("unifrom_gpt2", "did you mean 'uniform_gpt2'?"),
        ("zzz", "(there are: ado_gpt2, "),
        ("recipes/uniform_gpt2.yaml", "the shipped recipe is named uniform_gpt2"),
        ("nowhere/zzz.yaml", "nowhere/zzz.yaml: no such file"),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest(given, hint):
    with pytest.raises(UserError) as refused:
        find_recipe(Path(given))
    assert hint in str(refused.value)
    assert given in str(refused.value)
