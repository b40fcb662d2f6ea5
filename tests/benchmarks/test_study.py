"""The study of mixtures: its table of cases, its results, and the page that shows them."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.study import page
from benchmarks.study.__main__ import main
from benchmarks.study.ablation import TOGETHER, TRIED, changes, default
from benchmarks.study.all_methods import all_methods
from benchmarks.study.cases import (
    BASELINE,
    BEST_FIXED,
    CASES,
    COMPLETE,
    METHODS,
    PACE,
    SCHEDULE,
    methods_of,
    overrides_of,
    recipe_of,
)
from benchmarks.study.collect import ablation_results, case_results, rounded
from benchmarks.study.runs import Runs, check_corpus, is_finished
from dograph.errors import UserError
from dograph.experiments.plan import Plan, stand_in
from dograph.experiments.recipe.compose import RecipeFile

sys.path.append(str(Path(__file__).parent.parent / "experiments" / "comparison"))
from written_runs import RECIPE, write_experiment, write_run

CASE = CASES["even_environment"]
PICO = ("compose.model=gpt2_pico", "compose.trainer=cpu_pico")


@pytest.fixture
def made(tmp_path):
    """Runs of a case that arrived without checkpoints, five seeds; uniform ends at 4, 4.1, …"""
    ends = {BASELINE: 0.0, BEST_FIXED: -0.5, SCHEDULE: -0.45, "proportional_gpt2": 0.2}
    mixers = {BASELINE: "Stratified", BEST_FIXED: "Fixed", SCHEDULE: "DoGraphSchedule"}
    for seed in range(5):
        for name, gain in ends.items():
            end = 4 + 0.1 * seed + gain + 0.01 * (-1) ** seed * bool(gain)
            write(tmp_path / CASE.name / name, seed, end, mixers.get(name, "Proportional"))
        folder = tmp_path / CASE.name / "doge_gpt2" / f"seed_{seed}"
        write_experiment(folder, seed, [(3.8 + 0.1 * seed,) * 2], "DoGE")
        for stage in ("proxy", "main"):
            (folder / stage / "recipe.yaml").write_text(yaml.safe_dump(recipe("Fixed")))
    return tmp_path


def recipe(mixer):
    trainer = {**RECIPE["trainer"], "max_steps": 40}
    return {**RECIPE, "trainer": trainer, "mixer": {"class_path": f"dograph.mixers.{mixer}"}}


def write(folder, seed, end, mixer):
    """A finished run as it comes from another machine: three files."""
    run = write_run(folder / f"seed_{seed}", seed, [(end, end)], mixer)
    (run / "history.json").unlink()
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe(mixer)))


PAIRS = [
    pytest.param(case, method, id=f"{case.name}-{method}")
    for case in CASES.values()
    for method in methods_of(case)
]


@pytest.mark.parametrize(("case", "method"), PAIRS)
def test_every_case_composes_with_its_methods(case, method):
    own = overrides_of(method, case, {"licences": 0.25, "readmes": 0.75})
    file = RecipeFile(recipe_of(method), (*PICO, *case.overrides, *own))
    made = {stage: stand_in(stage) for stage in file.stages}
    values = file.compose(next(reversed(file.stages), None), made).values
    assert values["trainer"]["max_steps"] == 800
    assert (values["data"].get("unseen") == [values["target"]]) == case.name.startswith("unseen")
    arguments = values["mixer"].get("init_args", {})
    if method == BEST_FIXED:
        assert arguments["weights"] == {"licences": 0.25, "readmes": 0.75}


@pytest.mark.parametrize("case", COMPLETE)
@pytest.mark.parametrize("method", [name for name in PACE if RecipeFile(recipe_of(name)).stages])
def test_a_paced_method_s_stages_are_checked_recipes(case, method):
    own = overrides_of(method, CASES[case])
    plan = Plan.make(RecipeFile(recipe_of(method), (*PICO, *CASES[case].overrides, *own)))
    assert plan.last.steps == 800


def test_every_change_of_the_ablation_composes():
    for key in TRIED:
        default(key)
    for name, overrides in changes().items():
        values = RecipeFile(recipe_of(SCHEDULE), overrides).compose().values
        assert len(overrides) == 1 or name in TOGETHER
        assert name.replace(".", "").replace("_", "").isalnum()
        assert values["mixer"]["init_args"]


def test_a_case_s_results_are_the_comparison_s(made):
    content = case_results(CASE, made)
    methods = content["methods"]
    assert next(iter(methods)) == BASELINE
    assert content["gap"]["oracle"] == BEST_FIXED
    assert content["gap"]["mean"] == pytest.approx(0.498)
    assert methods[SCHEDULE]["share"]["mean"] == pytest.approx(0.448 / 0.498, abs=1e-3)
    assert methods["proportional_gpt2"]["paired"]["verdict"] == "loss"
    assert methods["doge_gpt2"]["cost"]["tokens"] == 5000
    assert methods[SCHEDULE]["weights"] == {"code": 0.5, "prose": 0.5}
    text = json.dumps(content)
    assert str(made) not in text
    assert len(text) < 6000


def test_without_the_baseline_there_are_no_results(made):
    shutil.rmtree(made / CASE.name / BASELINE)
    assert case_results(CASE, made) is None
    assert case_results(CASES["worst_manuals"], made) is None


def test_the_host_s_differences_are_one_note(made):
    path = made / CASE.name / SCHEDULE / "seed_0" / "provenance.json"
    path.write_text(path.read_text().replace("c0ffee", "beef"))
    (made / CASE.name / SCHEDULE / "seed_9").mkdir()
    shutil.copy(path, made / CASE.name / SCHEDULE / "seed_9")
    assert case_results(CASE, made)["notes"][1:] == [
        f"Left out because they did not finish: {SCHEDULE}/seed_9.",
        "Runs differ in their commit, which changes rounding and seconds.",
    ]


def test_an_ablation_is_judged_by_the_defaults(made):
    name = next(iter(changes()))
    assert ablation_results(CASE, made) is None
    for seed in range(5):
        write(made / CASE.name / "ablation" / name, seed, 3.5 + 0.1 * seed, "Proportional")
    content = ablation_results(CASE, made)
    assert next(iter(content["methods"])) == SCHEDULE
    assert content["methods"][name]["paired"]["mean"] == pytest.approx(-0.052)
    assert f"| {name.replace('_', ' ')} | **−0.052 ± " in page.ablation_table({CASE.name: content})


def test_the_table_of_all_methods_says_what_they_gain_cost_and_lack(made):
    assert all_methods({CASE.name: case_results(CASE, made)}) == []
    for seed in range(5):
        write(made / CASE.name / "odm_gpt2", seed, 4 + 0.1 * seed, "ODM")
        stage = made / CASE.name / "doge_gpt2" / f"seed_{seed}" / "proxy"
        error = {"out_of_fold_error": 0.1 * seed, "losses_standard_deviation": 0.5}
        errors = {"target": {**error, "spearman": None}}
        (stage / "fit.json").write_text(json.dumps({"errors": errors, "mixtures": 9}))
    content = case_results(CASE, made)
    assert content["methods"]["doge_gpt2"]["fit"] == {
        **{"error": 0.2, "spread": 0.5, "rank": None},
        **{"mixtures": 9, "seeds": 5},
    }
    _, table, absent, fit, settings = all_methods({CASE.name: content})
    rows = {line.split(" | ")[0][2:]: line for line in table.splitlines()}
    assert rows["ODM"].startswith("| ODM | +0.000 ± 0.000 | 0 % [")
    assert rows["DoGE"].endswith("| 1.25 | 2.00 |")
    assert "ADO (unseen: type_stubs, even (environment))" in absent
    assert "; ODM (unseen: type_stubs);" in absent
    assert "0.200 nats off out of fold, where losses spread by 0.500; rank correlation –" in fit
    assert "- ODM: `warmup=16`" in settings
    assert "ODM" not in page.differences_table({CASE.name: content})


def test_the_page_shows_shares_losses_and_what_is_missing(made):
    assert "| *loss* −" in page.shares_table("pico", {CASE.name: case_results(CASE, made)})
    shutil.rmtree(made / CASE.name / "proportional_gpt2" / "seed_4")
    cases = {CASE.name: case_results(CASE, made)}
    shares = page.shares_table("pico", cases)
    assert "(results/pico/even_environment.json) | 5 | 4.200 ± 0.196 | 0.498 ± 0.014 |" in shares
    assert "| **90 % [" in shares
    assert "| −40 % [" in shares  # of four seeds, which is no claim
    differences = page.differences_table(cases)
    assert "| +0.200 ± 0.018 (n = 4) |" in differences
    paired = [cases[CASE.name]["methods"][name]["paired"] for name in METHODS if name != BASELINE]
    sizes = [each["detectable"] for each in paired if each["detectable"] is not None]
    assert len(sizes) < len(paired)  # the best fixed mixture's differences do not vary
    assert differences.splitlines()[2].endswith(f" | {min(sizes):.3f} to {max(sizes):.3f} |")
    weak = {**cases[CASE.name]["methods"]["doge_gpt2"]}
    weak["paired"] = {**weak["paired"], "mean": -0.1, "detectable": 0.2, "verdict": "win"}
    assert page.difference_cell({"methods": {"doge_gpt2": weak}}, "doge_gpt2").endswith("**†")
    methods = cases[CASE.name]["methods"]
    less = {**cases[CASE.name], "methods": {k: v for k, v in methods.items() if k != "doge_gpt2"}}
    assert "DoGE" not in page.differences_table({CASE.name: less})
    assert "| – |" in page.differences_table({**cases, "worst_environment": less})
    assert "code 0.50, prose 0.50" in page.weights_table(cases)
    assert "| DoGE | 1.25 | 2.00 | 1.50 | 1 |" in page.cost_table(cases)
    said = "\n".join(page.missing(cases))
    assert "Not run: unseen: type_stubs" in said
    assert "even (environment): too few seeds for a claim: proportional 4." in said


def test_finished_runs_are_kept_wherever_they_were_made(made, monkeypatch):
    assert is_finished(made / CASE.name / BASELINE, 4)
    assert not is_finished(made / CASE.name / BASELINE, 5)
    runs = Runs(made, PICO)
    monkeypatch.setattr("benchmarks.study.runs.job_of", lambda *given: pytest.fail("runs again"))
    runs.run(CASE, [BASELINE, SCHEDULE, "doge_gpt2", BEST_FIXED])
    with pytest.raises(UserError, match="--corpus"):
        runs.run(CASES["even_manuals"], [BASELINE])


def test_a_case_that_does_not_compare_is_named_and_the_others_are_written(
    made, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    other = made / "worst_environment"
    shutil.copytree(made / CASE.name, other)
    path = other / SCHEDULE / "seed_0" / "provenance.json"
    path.write_text(path.read_text().replace("f00d", "another"))
    assert main(["--runs", str(made), "--no-run"]) == 1
    assert "worst_environment: these runs are not comparable" in capsys.readouterr().err
    written = json.loads((tmp_path / "results" / "pico" / f"{CASE.name}.json").read_text())
    assert written == case_results(CASE, made)
    assert not (tmp_path / "results" / "pico" / "worst_environment.json").exists()


def test_runs_on_another_corpus_are_told_before_anything_runs(tmp_path):
    run = tmp_path / "uniform_gpt2" / "seed_0"
    run.mkdir(parents=True)
    (run / "provenance.json").write_text(json.dumps({"fingerprint": "old"}))
    check_corpus(tmp_path, {"old", "another"})
    with pytest.raises(UserError, match=r"seed_0 was trained on the corpus old.*is new: give the"):
        check_corpus(tmp_path, {"new"})


def test_numbers_are_short():
    assert rounded({"a": [1.23456789, 2], "b": "1.23456789"}) == {
        "a": [1.23457, 2],
        "b": "1.23456789",
    }


def test_the_page_is_what_the_results_say():
    text = page.PAGE.read_text()
    assert text == page.page_with_results(text)


def test_a_page_without_a_place_is_told():
    with pytest.raises(ValueError, match="no place for the study"):
        page.page_with_results("# Nothing")


@pytest.mark.slow
def test_a_small_study(tmp_path, store, corpus_settings, monkeypatch, warm_sweeps):
    """The study's command from its table of cases to its results, and a second time."""
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    fixed = tmp_path / "fixed.yaml"
    fixed.write_text(yaml.safe_dump({CASE.name: {"animals": 0.5, "numbers": 0.25, "code": 0.25}}))
    words = [
        *("--cases", CASE.name, "--seeds", "1", "--runs", str(tmp_path / "runs")),
        *("--fixed", str(fixed), "--methods", BASELINE, SCHEDULE, BEST_FIXED, "doge_gpt2"),
        *(
            "--set",
            f"corpus.source={corpus_settings.source}",
            f"corpus.store={corpus_settings.store}",
        ),
        *("corpus.vocab_size=300", "corpus.validation_fraction=0.2", "trainer.max_steps=8"),
        *("data.context=16", "data.batch_size=8", "data.validation_sequences=8"),
        *("model.config={n_layer: 1, n_embd: 16, n_head: 2}", "trainer.val_check_interval=4"),
        *("report={every: 4, figures_every: 0, checkpoint_every: 100}",),
    ]
    schedule = tmp_path / "runs" / CASE.name / SCHEDULE / "seed_0" / "summary.json"
    assert main(words) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.study.__main__.ABLATED", (CASE.name,))
        patch.setattr("benchmarks.study.ablation.TRIED", {"problem.kappa": (0.0,)})
        assert main([words[0], words[1], "--ablation", *words[2:]]) == 0
    ablation = json.loads((tmp_path / "results" / "pico" / "ablation.json").read_text())
    assert ablation[CASE.name]["methods"]["kappa_0"]["seeds"] == [0]
    written = schedule.stat().st_mtime_ns
    content = json.loads((tmp_path / "results" / "pico" / f"{CASE.name}.json").read_text())
    assert set(content["methods"]) == {BASELINE, SCHEDULE, BEST_FIXED, "doge_gpt2"}
    assert content["methods"][BEST_FIXED]["weights"]["animals"] == 0.5
    assert main(words) == 0
    assert schedule.stat().st_mtime_ns == written
