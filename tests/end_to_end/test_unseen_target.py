"""A target, an unseen domain and a cap through whole runs: trained, judged, resumed, compared."""

import json

import pytest
from outcomes import scalars_of
from test_run import ROOT, small

from dograph.cli.main import main
from dograph.experiments.comparison.comparison import compare
from dograph.experiments.reproduction import reproduce

UNSEEN = ("target=code", "data.unseen=[code]", "data.cap={animals: 340}")
SHORT = (
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "report={every: 3, figures_every: 0, window: 1, checkpoint_every: 3}",
)


def call(name, settings, runs, *more, options=()):
    recipe = str(ROOT / "recipes" / f"{name}.yaml")
    return main(["run", recipe, *small(settings, runs, *SHORT, *more), *options])


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def runs(store, corpus_settings, tmp_path_factory):
    """Stratified sampling, and DoGE's two stages, for a target that none trains on."""
    folder = tmp_path_factory.mktemp("target")
    for name in ("uniform_gpt2", "doge_gpt2"):
        assert call(name, corpus_settings, folder, *UNSEEN) == 0
    return folder


def test_an_unseen_target_is_validated_and_not_trained_on(runs):
    uniform = summary_of(runs / "uniform_gpt2" / "seed_0")
    code = uniform["domains"]["code"]
    assert (code["share"], code["effective_share"], code["weight"]) == (0, 0, 0)
    assert uniform["target"] == "code"
    assert uniform["target_loss"] == uniform["losses"]["code"]
    assert uniform["domains"]["animals"]["epochs"] > 1  # 10 sequences of 33 tokens
    proxy, final = (summary_of(runs / "doge_gpt2" / "seed_0" / name) for name in ("proxy", "main"))
    assert proxy["domains"]["code"]["share"] == proxy["domains"]["code"]["effective_share"] == 0
    assert proxy["weights"]["average"]["code"] == 0
    assert final["domains"]["code"]["share"] == 0
    assert final["target"] == "code"  # all stages share it


def test_its_loss_is_a_curve_of_its_own(runs):
    scalars = scalars_of(runs / "uniform_gpt2" / "seed_0")
    target, code = (scalars[f"validation/{name}"] for name in ("target_loss", "loss/code"))
    assert target == code
    assert len(target) == 2


def test_methods_are_compared_by_it(runs):
    comparison = compare([runs])
    assert comparison.target.label == "code"
    assert [method.label for method in comparison.methods] == ["uniform", "doge"]
    assert comparison.baseline.target == comparison.baseline.domains["code"]


def test_a_run_with_a_target_is_reproduced(runs):
    assert reproduce(runs / "uniform_gpt2" / "seed_0").agrees


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("target=null", "target (code → not set)"),
        ("data.unseen=[]", "data.unseen (['code'] → [])"),
        ("data.cap=null", "data.cap.animals (340 → not set)"),
    ],
)
def test_a_checkpoint_is_not_resumed_under_another(runs, corpus_settings, changed, named, capsys):
    folder = runs / "uniform_gpt2" / "seed_0"
    longer = (*UNSEEN, "trainer.max_steps=9", changed)
    options = ("--resume", str(folder))
    assert call("uniform_gpt2", corpus_settings, runs, *longer, options=options) == 2
    assert f"command line: {named} cannot change in {folder}" in capsys.readouterr().err


def test_another_target_is_another_run(store, corpus_settings, tmp_path):
    for target in ("numbers", "numbers", "worst"):
        assert call("uniform_gpt2", corpus_settings, tmp_path, f"target={target}") == 0
    folders = sorted((tmp_path / "uniform_gpt2").glob("seed_*"))
    assert [summary_of(folder)["target"] for folder in folders] == ["numbers", "numbers", "worst"]
    digests = [json.loads((f / "provenance.json").read_text())["digest"] for f in folders]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", ["uniform_gpt2", "doge_gpt2"])
def test_an_unknown_domain_is_refused_before_any_training(
    store, corpus_settings, tmp_path, name, capsys
):
    assert call(name, corpus_settings, tmp_path, "target=coed") == 2
    assert "command line: target names 'coed'" in capsys.readouterr().err
    assert not list(tmp_path.glob("**/summary.json")) and not list(tmp_path.glob("**/*.ckpt"))
