"""A run starts from the mixture that another one found, on the same or another corpus."""

import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.from_run import start_from, start_mixture
from dograph.experiments.provenance import read_provenance
from dograph.experiments.recipe.compose import compose
from dograph.experiments.reproduction import reproduce
from dograph.files.atomic import write_json
from dograph.files.run_dir import FINAL_CHECKPOINT, RECIPE, SUMMARY

RUN = Path("runs/old/seed_0")
FIXED, DOGRAPH = "mixer.class_path=dograph.mixers.Fixed", "mixer.class_path=dograph.mixers.DoGraph"
SHARES = st.floats(0.01, 10)


@pytest.fixture(scope="session")
def old_run(tmp_path_factory):
    """A folder like a finished run's, which found a mixture of animals, numbers and letters."""
    folder = tmp_path_factory.mktemp("runs") / "old" / "seed_0"
    write_run(folder, {"animals": 0.1, "numbers": 0.3, "letters": 0.6})
    return folder


@pytest.fixture(scope="session")
def other_corpus(tmp_path_factory, make_corpus):
    """Overrides for a corpus with a new domain, code, and without letters; prepared once."""
    tmp_path = tmp_path_factory.mktemp("other")
    source = make_corpus(tmp_path / "text", {"animals": 20, "code": 40, "numbers": 20})
    return [f"corpus.source={source}", f"corpus.store={tmp_path / 'store'}"]


def write_run(folder, weights, recipe=None):
    numbers = {"share": 0.3, "effective_share": 0.3, "tokens": 9, "epochs": 1.0}
    numbers |= {"validation_loss": None, "validation_perplexity": None}
    domains = {
        name: {"name": name, **numbers, "weight": weight, "average_weight": weight}
        for name, weight in weights.items()
    }
    own = {"mixer": "DoGraph", "steps": 4, "seconds": 1.0, "flops": 1.0, "worst_domain": None}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SUMMARY, {**own, "domains": domains})
    if recipe is not None:
        (folder / RECIPE).write_text(yaml.safe_dump(recipe))


def prior_of(recipe, key="prior"):
    return recipe.composition.values["mixer"]["init_args"][key]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), SHARES, min_size=1),
    st.dictionaries(st.sampled_from("abcdef"), SHARES, min_size=1),
)
def test_new_domains_have_their_prior_and_the_others_their_ratios(found, prior):
    prior = {name: share / sum(prior.values()) for name, share in prior.items()}
    kept = [name for name in prior if name in found]
    if not kept:
        with pytest.raises(UserError, match="share no domain"):
            start_mixture(found, prior, RUN)
        return
    start = start_mixture(found, prior, RUN)
    assert math.isclose(sum(start.weights.values()), 1) and list(start.weights) == list(prior)
    for name in kept:
        ratio = start.weights[name] / start.weights[kept[0]]
        assert math.isclose(ratio, found[name] / found[kept[0]])
    assert all(start.weights[name] == prior[name] for name in start.new)
    assert {*start.kept, *start.new} == set(prior) and set(start.gone) == found.keys() - prior


@pytest.mark.parametrize(
    ("found", "prior", "says"),
    [
        ({"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, "found a alone: b would start at 0"),
        ({"a": 0.0, "b": 1.0}, {"a": 0.5, "c": 0.5}, "gave no weight to a, all that is left"),
        ({"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 0.0, "c": 1.0}, "new domains c all weight"),
    ],
)
def test_mixtures_that_no_mixer_could_leave_are_refused(found, prior, says):
    with pytest.raises(UserError, match=says):
        start_mixture(found, prior, RUN)


def test_a_single_domain_that_is_left_keeps_what_is_not_new():
    assert start_mixture({"a": 1.0}, {"a": 0.5, "c": 0.5}, RUN).weights == {"a": 0.5, "c": 0.5}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([DOGRAPH], 1 / 3),
        (["mixer.class_path=dograph.mixers.ADO"], None),  # its prior is the share of tokens
        ([DOGRAPH, "mixer.init_args.prior={animals: 1, code: 2, numbers: 1}"], 1 / 2),
        ([FIXED], 1 / 3),
        ([FIXED, "mixer.init_args.weights={animals: 0, code: 1, numbers: 3}"], 1 / 4),
    ],
)
def test_the_start_is_written_into_the_recipe(small_recipe, old_run, other_corpus, changes, code):
    composition = compose(small_recipe("new"), [*other_corpus, *changes])
    recipe = start_from(composition, old_run / SUMMARY)
    start = prior_of(recipe, "weights" if FIXED in changes else "prior")
    assert math.isclose(start["numbers"], 3 * start["animals"])
    assert math.isclose(sum(start.values()), 1)
    assert 0.36 < start["code"] < 0.5 if code is None else math.isclose(start["code"], code)
    told = recipe.started_from
    assert told["run"] == str(old_run) and told["new"] == ["code"] and told["gone"] == ["letters"]


def test_a_domain_that_either_run_does_not_train_on_is_not_carried_over(
    small_recipe, tmp_path, other_corpus
):
    unseen = {"data": {"unseen": ["code"]}}
    write_run(tmp_path / "run", {"animals": 0.2, "numbers": 0.8, "code": 0.0}, unseen)
    path = small_recipe("new")
    start = prior_of(start_from(compose(path, [*other_corpus, DOGRAPH]), tmp_path / "run"))
    assert math.isclose(start["code"], 1 / 3)  # new, not found to be worth nothing
    without = [*other_corpus, DOGRAPH, "data.unseen=[numbers]"]
    start = prior_of(start_from(compose(path, without), tmp_path / "run"))
    assert start == {"animals": 0.5, "code": 0.5}


def test_phases_hand_the_start_to_their_mixer(small_recipe, old_run, other_corpus):
    inner = "mixer: {class_path: dograph.mixers.DoGraph}"
    phases = "mixer={class_path: dograph.mixers.Phases, init_args: {%s}}"
    changes = [
        *other_corpus,
        phases % f"{inner}, phases: [{{at: 0}}, {{at: 4, weights: {{code: 1}}}}]",
    ]
    path = small_recipe("new")
    recipe = start_from(compose(path, changes), old_run)
    assert math.isclose(prior_of(recipe, "mixer")["init_args"]["prior"]["code"], 1 / 3)
    for stated, says in (
        (f"{inner}, phases: [{{at: 0, weights: {{code: 1}}}}]", "phases states the first mixture"),
        ("phases: [{at: 0}]", "mixer.init_args.mixer is not set"),
    ):
        with pytest.raises(UserError, match=says):
            start_from(compose(path, [*other_corpus, phases % stated]), old_run)


def test_what_cannot_start_from_a_run_is_refused(small_recipe, old_run, other_corpus, tmp_path):
    path = small_recipe("new")
    with pytest.raises(UserError, match=r"Stratified, which has no weights .*Fixed"):
        start_from(compose(path, other_corpus), old_run)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    with pytest.raises(UserError, match="name the folder of a finished run"):
        start_from(compose(path, [*other_corpus, DOGRAPH]), unfinished)
    with pytest.raises(UserError, match="must name every domain once"):
        named = "mixer.init_args.prior={animals: 1, numbers: 1}"
        start_from(compose(path, [*other_corpus, DOGRAPH, named]), old_run)
    with pytest.raises(UserError, match=r"torch\.nn\.Linear"):
        start_from(compose(path, ["mixer.class_path=Fixed"]), old_run)


def test_a_recipe_with_stages_says_where_the_weights_go(tmp_path, capsys):
    recipe = Path(__file__).parents[2] / "recipes" / "doremi_gpt2.yaml"
    assert main(["run", str(recipe), "--from", str(tmp_path)]) == 2
    assert "stages.NAME.mixer.init_args.prior" in capsys.readouterr().err


def test_a_started_run_is_recorded_resumed_and_reproduced(
    small_recipe, old_run, other_corpus, capsys
):
    path = small_recipe("new", steps=4)
    words = ["run", str(path), *other_corpus, FIXED, "--from", str(old_run)]
    assert main(words) == 0
    assert "numbers 0.5 keep its ratios; new, at their prior: code 0.3333; gone: letters" in (
        capsys.readouterr().out
    )
    folder = path.parent / "runs" / "new" / "seed_0"
    told = read_provenance(folder)["started_from"]
    assert told["weights"] == {"animals": 0.1, "numbers": 0.3, "letters": 0.6}
    (folder / SUMMARY).unlink()
    (folder / FINAL_CHECKPOINT).rename(folder / "checkpoints" / "step=4.ckpt")
    assert main(words) == 0 and not folder.with_name("seed_0_1").exists()  # the same run
    weights = json.loads((folder / SUMMARY).read_text())["weights"]["last"]
    assert math.isclose(weights["code"], 1 / 3) and math.isclose(weights["animals"], 1 / 6)
    assert reproduce(folder).agrees
