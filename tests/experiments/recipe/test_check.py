"""Every recipe and configuration is composed; every mistake names its file, key and remedy."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dograph.data.corpus.environment import DOMAINS
from dograph.data.corpus.source import open_source
from dograph.errors import UserError
from dograph.experiments.plan import Plan
from dograph.experiments.recipe.check import SECTIONS, check
from dograph.experiments.recipe.compose import Composition, RecipeFile, compose
from dograph.experiments.recipe.domains import check_domains
from dograph.experiments.recipe.section import check_section
from dograph.experiments.run import build_data
from dograph.mixers import DoGraph, Stratified
from dograph.mixers.target import check_names

ROOT = Path(__file__).parent.parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MAIN = ROOT / "recipes" / "dograph_gpt2.yaml"
STANDING = {"checkpoint": "none", "weights": {"web": 1.0}, "losses": {"web": 1.0}}


def message(*overrides, recipe=MAIN):
    with pytest.raises(UserError) as caught:
        check(compose(recipe, overrides))
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    file = RecipeFile(path)
    recipes = Plan.make(file).recipes.values() if file.stages else [check(file.compose())]
    assert len(recipes) == max(len(file.stages), 1)
    assert {recipe.name for recipe in recipes} == {path.stem}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(file.parent.name, file.stem) for file in sorted((ROOT / "configs").glob("*/*.yaml"))],
)
def test_every_configuration_composes(kind, name):
    check(compose(MAIN, [f"compose.{kind}={name}"]))


def test_recipes_of_the_comparison_differ_in_the_mixer_alone():
    """Main runs, too; `sketch` is a mixer's signal, and changes nothing where none asks for it."""
    compared = [
        file.compose("main" if file.stages else None, dict.fromkeys(file.stages, STANDING))
        for file in map(RecipeFile, RECIPES)
        # Its main run is of another size; and nested folders.
        if file.path.stem not in ("dograph_proxy_gpt2", "by_level_gpt2")
    ]
    for composition in compared:
        for key in ("mixer", "name", "sketch"):
            composition.values.pop(key, None)
    assert all(each.values == compared[0].values for each in compared)


PAPERS = {
    "doge_gpt2": {
        "stages.proxy.compose": "{model: gpt2_82m, trainer: gpu_doge_proxy}",
        "stages.main.compose": "{model: gpt2_210m, trainer: gpu_dograph_210m}",
        "stages.proxy.mixer.init_args.mu": "0.01",
    },
    "doremi_gpt2": {
        "stages.reference.compose": "{model: gpt2_120m, trainer: gpu_doremi_proxy}",
        "stages.proxy.compose": "{model: gpt2_120m, trainer: gpu_doremi_proxy}",
        "stages.main.compose": "{model: gpt2_300m, trainer: gpu_dograph_300m}",
    },
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_scales_are_composed(name):
    overrides = [f"{key}={value}" for key, value in PAPERS[name].items()]
    recipes = Plan.make(RecipeFile(ROOT / "recipes" / f"{name}.yaml", overrides)).recipes
    proxy, main = recipes["proxy"].sections, recipes["main"].sections
    assert proxy["model"].config["n_layer"] == {"doge_gpt2": 6, "doremi_gpt2": 12}[name]
    assert proxy["trainer"].max_steps == {"doge_gpt2": 10_000, "doremi_gpt2": 200_000}[name]
    assert main["model"].config["n_layer"] == {"doge_gpt2": 24, "doremi_gpt2": 36}[name]
    assert main["data"].context == 512
    assert main["model"].compile


def test_the_resolved_recipe_runs_alone(tmp_path):
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(check(compose(MAIN, ["seed=7"])).as_yaml())
    again = check(compose(resolved))
    assert (again.seed, again.name) == (7, "dograph_gpt2")
    assert isinstance(again.mixer, DoGraph)


def test_overrides_have_the_last_word():
    recipe = check(compose(MAIN, ["trainer.max_steps=20", "mixer.init_args.clusters=4"]))
    assert recipe.arguments("trainer")["max_steps"] == 20
    assert recipe.mixer.clusters == 4


def test_the_seed_reaches_projections_and_clusters_unless_they_set_their_own():
    recipe = check(compose(MAIN, ["seed=7"]))
    assert (recipe.seed, recipe.sketch.seed, recipe.mixer.seed) == (7, 7, 7)
    recipe = check(compose(MAIN, ["seed=7", "sketch.seed=1", "mixer.init_args.seed=2"]))
    assert (recipe.seed, recipe.sketch.seed, recipe.mixer.seed) == (7, 1, 2)


def test_a_wrong_key_names_itself_its_file_and_the_nearest_spelling(tmp_path):
    text = message("mixer.init_args.clutsers=4")
    assert "command line" in text
    assert "mixer.init_args.clutsers" in text
    assert "'clusters'" in text
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("mixer: {class_path: dograph.mixers.Stratified}\ndata: {batchsize: 4}\n")
    text = message(recipe=wrong)
    assert "wrong.yaml" in text
    assert "data.batchsize" in text
    assert "'batch_size'" in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trianer.max_steps=3", "did you mean 'trainer'"),
        ("corpus.sorce=x", "did you mean 'source'"),
        ("mixer.init_arg=3", "did you mean 'init_args'"),
        (
            "mixer.init_args.clusters=many",
            "mixer.init_args.clusters: Expected int. Got value: many",
        ),
        ("mixer.init_args.objective=best", "Got value: best"),
        ("mixer.init_args.beta=-1", "beta is -1.0: it must be ≥ 0"),
        ("mixer.init_args.clusters=0", "clusters is 0"),
        ("mixer.class_path=dograph.mixers.DoGraf", "did you mean 'DoGraph'"),
        ("mixer.class_path=torch.nn.Linear", "name a subclass of dograph.mixers.BaseMixer"),
        ("mixer.class_path=no.such.Thing", "cannot be imported"),
        ("mixer=3", "mixer must name a class"),
        ("mixer={class_path: dograph.mixers.Stratified, init_args: {a: 1}}", "known keys: none"),
        ("data.batch_size=x", "data.batch_size: Expected int"),
        ("data=4", "must be a mapping"),
        ("report.every=0", "report.every is 0"),
        ("sketch.rank=0", "rank is 0"),
        ("seed=x", "seed is 'x'"),
        ("seed=-1", "seed is -1"),
        ("name=../a", "an invalid folder name"),
        ("target=3", "command line: target is 3: name a domain"),
        ("target={web: -1}", "command line: target.web is -1: give a finite number"),
        ("target={}", "give at least one domain a weight"),
        ("data.unseen=web", "data.unseen"),
        ("data.cap={web: many}", "data.cap: Does not validate"),
        ("limits.at_most.d.x=0.1", "'d.x' write limits.at_most='{d.x: 0.1}'"),
        ("limits.epochs.d.x=1", "'d.x' write limits.epochs='{d.x: 1}'"),
        ("limits.ratio.a.d.x=[1,2]", "'d.x' write limits.ratio.a='{d.x: [1, 2]}'"),
        ("mixer.init_args.solver.class_path=my.Nope", "solver: Problem with given class_path"),
        ("mixer.init_args.solver=pipq", "pipq: choose one of piqp, cvxpylayers, or a class_path"),
        ("data.target=web", "data.target cannot be set"),
        ("mixer.init_args.target=web", "unknown key"),
        ("compose.model=gpt2_nanu", "did you mean 'gpt2_nano'"),
        ("trainer.max_steps=${nope}", "nope"),
        ("nonsense", "write key=value"),
    ],
)
def test_mistakes_get_clear_errors(override, expected):
    assert expected in message(override)


def test_a_missing_or_broken_recipe_is_named(tmp_path):
    assert "no such file" in message(recipe=tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("mixer: [1, 2\n")
    assert "broken.yaml" in message(recipe=broken)
    broken.write_text("- 1\n- 2\n")
    assert "mapping" in message(recipe=broken)
    broken.write_text("!!python/object/apply:os.getcwd []\n")
    assert "broken.yaml" in message(recipe=broken)


@given(
    section=st.sampled_from(sorted(SECTIONS)),
    key=st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=3, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_no_unknown_key_slips_through(section, key):
    composition = compose(MAIN)
    known = SECTIONS[section][0].__init__.__annotations__
    if key in known:
        return
    composition.values.setdefault(section, {})[key] = 1
    with pytest.raises(UserError, match="unknown key"):
        check(composition)


def test_a_mixer_of_ones_own_is_found_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_mixers.py").write_text(
        "from dograph.mixers import Stratified\n\nclass Mine(Stratified):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = check(compose(MAIN, ["mixer={class_path: my_mixers.Mine}"]))
    assert isinstance(recipe.mixer, Stratified)


def test_a_target_replaces_another_as_a_whole(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mixer: {class_path: dograph.mixers.Stratified}\ntarget: {web: 1, code: 2}\n")
    assert check(compose(path, ["trainer.max_steps=1"])).target.value == {"web": 1, "code": 2}
    recipe = check(compose(path, ["trainer.max_steps=1", "target={books: 1}"]))
    assert recipe.target.value == {"books": 1}


def test_caps_replace_a_setting_s_as_a_whole():
    names = ["compose.setting=scarce", "target=web", "data.cap={web: 20000}"]
    assert compose(MAIN, names).values["data"]["cap"] == {"web": 20000}
    assert compose(MAIN, names[:1]).values["data"]["cap"] == {"type_stubs": 16000}


def test_the_unseen_domain_is_the_target():
    recipe = check(compose(MAIN, ["compose.setting=unseen", "target=web"]))
    assert (recipe.target.value, recipe.arguments("data")["unseen"]) == ("web", ["web"])


@pytest.mark.parametrize(
    "setting", sorted(file.stem for file in (ROOT / "configs/setting").iterdir())
)
def test_settings_name_domains_of_the_environment_corpus(setting):
    recipe = check(compose(MAIN, [f"compose.setting={setting}"]))
    open_source(recipe.corpus)  # checks what domains are derived from
    recipe.target.check(sorted(DOMAINS))
    check_names("data", [*recipe.arguments("data")["unseen"]], sorted(DOMAINS))
    check_names("data.cap", [*(recipe.arguments("data")["cap"] or {})], sorted(DOMAINS))


def test_useless_domains_do_not_count():
    recipe = check(compose(MAIN, ["compose.setting=useless_share"]))
    derived = recipe.corpus.derivations()
    assert len(derived) == 8
    assert set(recipe.target.mixture) == set(DOMAINS)
    assert {derived[f"copy_{number}"].origin for number in range(1, 6)} == {"licences"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("target=nubmers", "command line: target names 'nubmers', not a domain of the corpus; did"),
        ("data.unseen=[nubmers]", "command line: data.unseen names 'nubmers'"),
        ("data.cap={nubmers: 5000}", "command line: data.cap names 'nubmers'"),
    ],
)
def test_unknown_domains_are_named_once_the_corpus_is_known(
    small_recipe, store, override, expected
):
    recipe = check(compose(small_recipe("mine"), [override]))
    with pytest.raises(UserError) as caught:
        check_domains(recipe, store)
    assert expected in str(caught.value)
    assert "did you mean 'numbers'" in str(caught.value)


def test_a_cap_below_one_sequence_is_refused_before_training():
    with pytest.raises(UserError, match=r"command line: data\.cap\.web is 7: it must be ≥ 129"):
        build_data(check(compose(MAIN, ["data.cap={web: 7}"])))


@pytest.mark.parametrize("union", [int | float | None, float | int | None])
@pytest.mark.parametrize("value", [1, 1.0, 0.5])
def test_one_batch_is_not_all_batches_in_whatever_order_types_stand(union, value):
    class Trains:
        def __init__(self, batches: union): ...

    composition = Composition({}, [("recipe", OmegaConf.create({}))])
    kept = check_section(composition, "trains", Trains, {"batches": value}, set()).batches
    assert (kept, type(kept)) == (value, type(value))


@pytest.mark.parametrize("bound", ["-1", ".nan"])
def test_a_bound_that_would_turn_gradients_round_is_refused(bound):
    assert "trainer.gradient_clip_val is" in message(f"trainer.gradient_clip_val={bound}")


def test_a_learning_rate_that_would_rise_to_the_end_is_refused():
    """Whoever lowers the peak alone would train with the old, higher end of the cosine."""
    assert "model.final_learning_rate is 0.0002, above" in message("model.learning_rate=1e-5")
    check(compose(MAIN, ["model.learning_rate=1e-5", "model.final_learning_rate=1e-5"]))


def test_an_empty_section_does_not_erase_what_is_composed(tmp_path):
    recipe = tmp_path / "commented_out.yaml"
    recipe.write_text(MAIN.read_text() + "model:\n#  learning_rate: 1.0e-3\n")
    assert f"{recipe}: model is empty" in message(recipe=recipe)
    assert "command line: data is empty" in message("data=null")


def test_stages_of_a_recipe_without_stages_are_refused():
    assert "has no stages" in message("stages.proxy.trainer.max_steps=5")


def test_a_round_draws_by_what_the_last_one_chose_whatever_is_overridden():
    chosen = {"a": 0.5, "b": 0.5}
    mixer = {"class_path": "dograph.mixers.Fixed", "init_args": {"weights": chosen}}
    for own in ("Temperature", "Fixed"):
        words = [f"stages.reference.mixer.class_path=dograph.mixers.{own}"]
        words += ["stages.reference.mixer.init_args.weights={a: 3, b: 1}"] if own == "Fixed" else []
        file = RecipeFile(ROOT / "recipes" / "doremi_gpt2.yaml", words)
        first, later = (file.compose("reference", {}, more) for more in ({}, {"mixer": mixer}))
        assert first.values["mixer"]["class_path"].endswith(own)
        assert later.values["mixer"] == mixer
