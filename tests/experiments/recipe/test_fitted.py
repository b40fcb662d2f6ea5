"""A recipe draws by the mixture that a fit proposed."""

import json

import pytest

from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import RecipeFile

MIXER = "dograph.mixers.Fixed\n  init_args: {weights: '${fit.weights}'}"


@pytest.fixture
def recipe(small_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return small_recipe("fitted", MIXER, more="fit: fit.json\n")


def test_the_weights_stand_in_the_resolved_recipe(recipe, tmp_path):
    weights = {"animals": 0.5, "numbers": 0.25, "code": 0.25}
    (tmp_path / "fit.json").write_text(json.dumps({"weights": weights, "law": "gp"}))
    values = check(RecipeFile(recipe).compose()).composition.values
    assert values["mixer"]["init_args"]["weights"] == weights
    assert "fit" not in values
    (tmp_path / "other.json").write_text(json.dumps({"weights": {**weights, "code": 1}}))
    other = RecipeFile(recipe, ["fit=other.json"]).compose().values
    assert other["mixer"]["init_args"]["weights"]["code"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"fitted.yaml: fit is 'fit.json', but there is no such file: run `dograph fit`"),
        ("{", "which cannot be read"),
        ("[]", "which has no weights"),
        ('{"weights": {}}', "which has no weights"),
        ('{"weights": {"code": "${seed}"}}', "which has no weights"),
        ('{"weights": {"code": -1}}', "which has no weights"),
        ('{"weights": {"code": NaN}}', "which has no weights"),
    ],
)
def test_a_fit_without_weights_is_refused(recipe, tmp_path, content, message):
    if content is not None:
        (tmp_path / "fit.json").write_text(content)
    with pytest.raises(UserError, match=message):
        RecipeFile(recipe).compose()
    with pytest.raises(UserError, match=r"name the fit\.json"):
        RecipeFile(recipe, ["fit=[1]"]).compose()


def test_a_fit_that_no_key_reads_is_refused(recipe, small_recipe, tmp_path):
    weights = {"animals": 0.5, "numbers": 0.25, "code": 0.25}
    (tmp_path / "fit.json").write_text(json.dumps({"weights": weights}))
    path = small_recipe("even", more="fit: fit.json\n")
    with pytest.raises(UserError, match=r"fit is set, but no key reads it: write mixer: ") as error:
        RecipeFile(path).compose()
    remedy = str(error.value).partition("write ")[2]
    own = path.read_text().replace("mixer:\n  class_path: dograph.mixers.Stratified\n", "")
    path.write_text(f"{own}{remedy}\n")
    assert RecipeFile(path).compose().values["mixer"]["init_args"]["weights"] == weights
    # A common key may be one that a later stage alone reads.
    path.write_text(f"{own}stages: {{first: {{seed: 1}}, last: {{{remedy}}}}}\n")
    RecipeFile(path).compose("first")
