"""`dograph plan`: every recipe, every stage, on screens of any width."""

import json
from pathlib import Path

import pytest

from dograph.cli.main import main
from dograph.experiments.forecast.recipe_forecast import Forecaster
from dograph.experiments.forecast.table import total_cost
from dograph.experiments.recipe.compose import RecipeFile

RECIPES = sorted((Path(__file__).parent.parent.parent.parent / "recipes").glob("*.yaml"))
SMALL = [
    *("data.context=16", "data.batch_size=16", "trainer.max_steps=60", "model.warmup=2"),
    *("corpus.vocab_size=300", "corpus.validation_fraction=0.2"),
]
OF_ENVIRONMENT = ("phases_gpt2", "skill_it_gpt2", "skill_it_learnt_gpt2")
"""Recipes that name the environment's domains, and are planned without its tokens."""
TWO_STAGES = """\
stages:
  first: {mixer: {class_path: dograph.mixers.Proportional}}
  main:
    mixer:
      class_path: dograph.mixers.Fixed
      init_args: {weights: "${stages.first.weights}"}
"""


def own_corpus(corpus_settings):
    return [f"corpus.source={corpus_settings.source}", f"corpus.store={corpus_settings.store}"]


@pytest.fixture
def two_stages(small_recipe):
    path = small_recipe("staged", steps=2)
    text = path.read_text().replace("mixer:\n  class_path: dograph.mixers.Stratified\n", "")
    path.write_text(text + TWO_STAGES)
    return path


def planned(capsys, *words):
    """What `dograph plan` prints."""
    assert main(["plan", *map(str, words)]) == 0
    return capsys.readouterr().out


def as_json(capsys, *words):
    return json.loads(planned(capsys, *words, "--json"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_planned(recipe, store, corpus_settings, capsys, tmp_path):
    prepared = recipe.stem not in OF_ENVIRONMENT
    own = own_corpus(corpus_settings) if prepared else [f"corpus.store={tmp_path / 'none'}"]
    content = as_json(capsys, recipe, *own, *SMALL)
    for stage in content["stages"]:
        assert stage["parameters"] > 0 < stage["flops"]
        assert stage["steps"] == 60
        if not prepared:
            assert stage["domains"] is None
            continue
        known = "is to find the weights" not in " ".join(stage["notes"])
        assert [each["name"] for each in stage["domains"]] == ["animals", "code", "numbers"]
        shares = [each["weight"] for each in stage["domains"]]
        assert sum(shares) == pytest.approx(1) if known else shares == [None] * 3
        if known:
            drawn = sum(each["tokens"] for each in stage["domains"])
            assert drawn == pytest.approx(stage["tokens"], abs=3 * 16)
    costs = (each["rounds"] * each["tokens"] for each in content["stages"])
    assert content["total"]["tokens"] == sum(costs)


def test_a_finished_stage_is_named_and_gives_its_weights(two_stages, capsys):
    before = as_json(capsys, two_stages)["stages"]
    assert before[1]["notes"] == ["stage first is to find the weights"]
    assert before[1]["domains"][0]["tokens"] is None
    assert main(["run", str(two_stages), "--stage", "first"]) == 0
    capsys.readouterr()
    first, second = as_json(capsys, two_stages)["stages"]
    assert first["finished"].endswith("staged/seed_0/first")
    assert second["finished"] is None
    assert not second["notes"]
    weights = [[each["weight"] for each in stage["domains"]] for stage in (first, second)]
    assert weights[1] == pytest.approx(weights[0])


def test_rounds_count_in_the_cost(store, corpus_settings):
    recipe = next(path for path in RECIPES if path.stem == "doremi_gpt2")
    words = [*own_corpus(corpus_settings), *SMALL, "rounds.at_most=3"]
    stages = list(Forecaster(RecipeFile(recipe, words)).stages())
    assert [stage.rounds for stage in stages] == [3, 3, 1]
    assert total_cost(stages)["tokens"] == 7 * 60 * 16 * 16
    assert total_cost(stages)["seconds"] is None


def test_an_unprepared_corpus_is_prepared_only_if_asked(
    small_recipe, corpus_settings, tmp_path, capsys
):
    own = tmp_path / "own_store"
    path = small_recipe("unprepared")
    text = planned(capsys, path, f"corpus.store={own}")
    assert "not prepared" in text
    assert "--prepare" in text
    assert "128 tokens" in text
    assert not list(tmp_path.glob("own_store*"))
    content = as_json(capsys, path, f"corpus.store={own}", "--prepare")
    assert own.is_dir()
    assert content["stages"][0]["domains"][0]["available"] > 0


def test_a_corpus_that_is_not_here_is_no_obstacle(small_recipe, capsys):
    path = small_recipe("elsewhere")
    words = ["corpus.source=/nowhere/text", "corpus.store=/nowhere/store"]
    text = planned(capsys, path, *words, "trainer.devices=4", "trainer.accelerator=gpu")
    assert "the corpus cannot be read: corpus.source is /nowhere/text" in " ".join(text.split())
    assert "Memory of each of 4 devices" in text


def test_ten_steps_are_measured_and_leave_nothing(small_recipe, store, tmp_path, capsys):
    path = small_recipe("measured", "dograph.mixers.DoGraph", steps=400)
    before = sorted(tmp_path.rglob("*"))
    words = ["mixer.init_args.clusters=2", "trainer.val_check_interval=100"]
    (stage,) = as_json(capsys, path, *words, "--measure")["stages"]
    assert 0 < stage["seconds"] < 400 * 60
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stage_that_needs_an_earlier_one_is_not_measured(two_stages, capsys):
    words = ["trainer.max_steps=20", "trainer.val_check_interval=20"]
    first, second = as_json(capsys, two_stages, *words, "--measure")["stages"]
    assert first["seconds"] > 0
    assert second["seconds"] is None
    assert any("not measured" in note for note in second["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.max_steps=5"], "trainer.max_steps is 5"),
        (["model.config={n_layer: 200, n_embd: 16384, n_head: 2}"], "GB of memory"),
        (["corpus.store=/nowhere/store"], "add --prepare"),
        (["corpus.source=/nowhere"], "corpus.source is /nowhere"),
        (["trainer.max_step=5"], "did you mean 'max_steps'?"),
        (["target=codex"], "did you mean 'code'?"),
    ],
)
def test_what_cannot_be_measured_is_refused(small_recipe, store, capsys, words, message):
    path = small_recipe("refused", steps=20)
    assert main(["plan", str(path), *words, "--measure"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 80, None])
def test_names_and_numbers_stay_whole_on_any_screen(
    small_recipe, store, capsys, monkeypatch, width
):
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    path = small_recipe("screens", "dograph.mixers.Proportional")
    devices = ["trainer.accelerator=gpu", "trainer.devices=8", "trainer.num_nodes=128"]
    words = [path, "data.cap={animals: 400}", "trainer.max_steps=4000000", *devices]
    (stage,) = as_json(capsys, *words)["stages"]
    text = planned(capsys, *words)
    lines = text.splitlines()
    if width is not None:
        assert max(map(len, lines)) <= width
    written = text.split()
    for each in stage["domains"]:
        assert each["name"] in written
        assert f"{each['available']:,}" in written
        assert f"{each['tokens']:,}" in written
        assert f"{each['epochs']:.2f}" in written
    assert f"{stage['tokens']:,}" in written
    assert f"{stage['parameters']:,}" in written
