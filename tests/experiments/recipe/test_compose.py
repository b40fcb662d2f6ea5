"""What an override merges with and what it replaces, by classes and by domains."""

from pathlib import Path

import pytest

from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import RecipeFile, compose
from dograph.experiments.recipe.keys import deciding

RECIPES = Path(__file__).parent.parent.parent.parent / "recipes"
ANCHORED = RECIPES / "dograph_anchored_gpt2.yaml"
OWN = {"clusters": 11, "objective": "uncertainty", "beta": 0.1, "anchor": 1}
FIXED = """\
mixer: {class_path: dograph.mixers.Fixed, init_args: {weights: {a: 1, b: 1, c: 1}}}
data: {cap: {a: 100, b: 200}}
target: {a: 1, b: 2}
"""
GRAPH = """\
mixer:
  class_path: dograph.mixers.SkillIt
  init_args: {graph: {a: {a: 1, b: 2}, b: {b: 1}}, prior: {a: 1, b: 3}, window: 2}
"""
STAND_INS = {
    "reference": {"checkpoint": "c", "weights": {}},
    "proxy": {"checkpoint": "c", "weights": {}},
}


def recipe(folder, text):
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


def arguments(path, *overrides, stage=None):
    return RecipeFile(path, overrides).compose(stage).values["mixer"].get("init_args")


@pytest.mark.parametrize(
    "path", ["dograph.DoGraph", "dograph.mixers.dograph.DoGraph", "dograph.mixers.DoGraph"]
)
def test_a_mixer_spelled_otherwise_keeps_the_recipe_s_arguments(path):
    assert arguments(ANCHORED, f"mixer.class_path={path}") == OWN
    mixer = f"mixer={{class_path: {path}, init_args: {{beta: 2}}}}"
    assert arguments(ANCHORED, mixer) == {**OWN, "beta": 2}


@pytest.mark.parametrize(
    "path", ["dograph.Stratified", "dograph.mixers.Stratified", "no.such.DoGraph", "os.DoGraph"]
)
def test_another_mixer_starts_with_its_own_defaults(path):
    assert arguments(ANCHORED, f"mixer.class_path={path}") is None


LLAMA = "model.architecture=llama"
SIZES = "model.config={hidden_size: 32, num_hidden_layers: 1}"


@pytest.mark.parametrize(
    ("overrides", "config"),
    [
        ([], {"n_layer": 4, "n_embd": 160, "n_head": 5}),
        (["model.architecture=gpt2"], {"n_layer": 4, "n_embd": 160, "n_head": 5}),
        ([LLAMA], None),
        ([LLAMA, SIZES], {"hidden_size": 32, "num_hidden_layers": 1}),
        ([SIZES, LLAMA], {"hidden_size": 32, "num_hidden_layers": 1}),
    ],
)
def test_another_architecture_starts_with_its_own_configuration(overrides, config):
    model = compose(ANCHORED, overrides).values["model"]
    assert model.get("config") == config
    assert model["warmup"] == 40


def test_a_stage_s_architecture_replaces_the_common_configuration():
    file = RecipeFile(RECIPES / "doremi_gpt2.yaml", [f"stages.main.{LLAMA}"])
    assert "config" not in file.compose("main", STAND_INS).values["model"]
    assert file.compose("proxy", STAND_INS).values["model"]["config"]["n_embd"] == 160


def test_a_configuration_without_a_named_architecture_is_the_default_one_s(tmp_path):
    path = recipe(tmp_path, FIXED + "model: {config: {n_layer: 1}}\n")
    assert compose(path, ["model.architecture=gpt2"]).values["model"]["config"] == {"n_layer": 1}
    assert "config" not in compose(path, [LLAMA]).values["model"]


def test_a_class_of_another_name_is_not_imported(tmp_path, monkeypatch):
    """A recipe's code does not run where the command line names another mixer."""
    (tmp_path / "hidden_a.py").write_text("class Own: pass\nraise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = recipe(tmp_path, "mixer: {class_path: hidden_a.Own, init_args: {x: 1}}\n")
    assert arguments(path, "mixer.class_path=dograph.mixers.Stratified") is None


def test_one_mixer_is_one_run_however_it_is_spelled():
    spelled = (f"mixer.class_path={name}" for name in ("dograph.DoGraph", "dograph.mixers.DoGraph"))
    one, other = (deciding(compose(ANCHORED, [word]).values) for word in spelled)
    assert one == other
    assert one["mixer.class_path"] == "dograph.mixers.DoGraph"


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        ([], {"a": 1, "b": 1, "c": 1}),
        (["weights={a: 3}"], {"a": 3}),
        (["weights.a=3"], {"a": 3, "b": 1, "c": 1}),
        (["weights[a]=3"], {"a": 3, "b": 1, "c": 1}),
        (["weights={a: 3}", "weights.b=2"], {"a": 3, "b": 2}),
        (["weights.b=2", "weights={a: 3}"], {"a": 3}),
        (["weights={a: 3}", "weights={d: 3}"], {"d": 3}),
    ],
)
def test_weights_given_whole_replace_and_an_entry_changes_itself(tmp_path, overrides, weights):
    path = recipe(tmp_path, FIXED)
    assert arguments(path, *(f"mixer.init_args.{word}" for word in overrides)) == {
        "weights": weights
    }


def test_the_rule_is_the_same_above_and_for_all_mappings_by_domain(tmp_path):
    path = recipe(tmp_path, FIXED)
    assert arguments(path, "mixer.init_args={weights: {c: 2}}") == {"weights": {"c": 2}}
    assert arguments(path, "mixer={init_args: {weights: {c: 2}}}") == {"weights": {"c": 2}}
    for override, target, cap in (
        ("target={c: 1}", {"c": 1}, {"a": 100, "b": 200}),
        ("target.b=5", {"a": 1, "b": 5}, {"a": 100, "b": 200}),
        ("target=worst", "worst", {"a": 100, "b": 200}),
        ("data.cap={c: 300}", {"a": 1, "b": 2}, {"c": 300}),
        ("data={cap: {c: 300}}", {"a": 1, "b": 2}, {"c": 300}),
        ("data.cap.b=300", {"a": 1, "b": 2}, {"a": 100, "b": 300}),
        ("data.cap=null", {"a": 1, "b": 2}, None),
    ):
        values = compose(path, [override]).values
        assert (values["target"], values["data"]["cap"]) == (target, cap), override


def test_rows_of_a_graph_are_mappings_by_domain_too(tmp_path):
    path = recipe(tmp_path, GRAPH)
    graph, prior = {"a": {"a": 1, "b": 2}, "b": {"b": 1}}, {"a": 1, "b": 3}
    for override, expected in (
        ("graph={b: {a: 4}}", {"graph": {"b": {"a": 4}}, "prior": prior}),
        ("graph.a={b: 4}", {"graph": {**graph, "a": {"b": 4}}, "prior": prior}),
        ("graph.a.b=4", {"graph": {**graph, "a": {"a": 1, "b": 4}}, "prior": prior}),
        ("prior={b: 4}", {"graph": graph, "prior": {"b": 4}}),
    ):
        assert arguments(path, f"mixer.init_args.{override}") == {**expected, "window": 2}


def test_a_stage_s_mapping_replaces_the_common_one_and_overrides_follow_the_rule(tmp_path):
    stages = "stages: {one: {}, two: {mixer: {init_args: {weights: {a: 5, b: 6}}}}}\n"
    path, key = recipe(tmp_path, FIXED + stages), "mixer.init_args.weights"
    for overrides, one, two in (
        ([], {"a": 1, "b": 1, "c": 1}, {"a": 5, "b": 6}),
        ([f"stages.two.{key}={{c: 1}}"], {"a": 1, "b": 1, "c": 1}, {"c": 1}),
        (["stages={two: {mixer: {init_args: {weights: {c: 1}}}}}"], {"a": 1, "b": 1, "c": 1}, None),
        ([f"stages.two.{key}.b=9"], {"a": 1, "b": 1, "c": 1}, {"a": 5, "b": 9}),
        ([f"{key}={{c: 1}}"], {"c": 1}, {"c": 1}),
        ([f"{key}.b=7"], {"a": 1, "b": 7, "c": 1}, {"a": 5, "b": 7}),
    ):
        assert arguments(path, *overrides, stage="one") == {"weights": one}
        assert arguments(path, *overrides, stage="two") == {"weights": two or {"c": 1}}


def test_overrides_that_do_not_fit_one_another_are_refused(tmp_path):
    with pytest.raises(UserError, match="command line: "):
        RecipeFile(recipe(tmp_path, FIXED), ["data.unseen=[a]", "data.unseen.b=1"])


def test_a_warm_up_longer_than_the_run_is_told_once(caplog):
    main = RECIPES / "dograph_gpt2.yaml"
    words = ["model.warmup=1000", "trainer.max_steps=21"]
    for seed in (0, 1):
        check(compose(main, [*words, f"seed={seed}"]))
    assert [record.getMessage() for record in caplog.records] == [
        "command line: model.warmup is 1000, but the run ends after 21 steps (trainer.max_steps): "
        "its learning rate only rises, to 2% of model.learning_rate: lower model.warmup, or train "
        "longer"
    ]
    caplog.clear()
    check(compose(main, ["trainer.max_steps=23"]))
    (record,) = caplog.records
    assert "gpt2_nano.yaml: model.warmup is 40" in record.getMessage()
    assert "to 57% of" in record.getMessage()
    caplog.clear()
    check(compose(main, ["trainer.max_steps=41"]))
    check(compose(main, ["model.warmup=0", "trainer.max_steps=1"]))
    assert not caplog.records
