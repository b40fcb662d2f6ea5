"""A recipe with a swarm, a fit to it, and a main run that draws by what it proposes."""

import json
import signal
import time

import pytest
from warm import start_command

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.comparison.conditions import method_of
from dograph.experiments.comparison.runs import find_runs, unfinished
from dograph.experiments.laws.run_table import read_runs
from dograph.experiments.plan import Corpora, Plan
from dograph.experiments.recipe.compose import RecipeFile
from dograph.experiments.reproduction import runs_of
from dograph.experiments.run_inputs import RunInputs
from dograph.experiments.stages import Experiment
from dograph.reports.summary import read_summary

STAGES = """\
stages:
  proxies:
    swarm: {mixtures: 4, corners: 0, repeats: 2}
    fit: {law: gp}
  main:
    mixer: {class_path: dograph.mixers.Fixed, init_args: {weights: "${stages.proxies.weights}"}}
"""
RUNS = 4 + 2


@pytest.fixture
def recipe(small_recipe):
    """Writes the recipe; more keys may follow."""
    return lambda more="": small_recipe("regmix", more=STAGES + more)


def experiment(path, *overrides):
    return Experiment(Plan.make(RecipeFile(path, overrides)))


def content_of(folder, name="summary.json"):
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.proxies.fit.law=regmx"], "fit.law is 'regmx'; did you mean 'regmix'"),
        (["stages.proxies.fit.folds=1"], "fit.folds is 1: it must be ≥ 2"),
        (["stages.proxies.fit.lwa=gp"], "unknown key 'fit.lwa'; did you mean 'law'"),
        (["stages.proxies.fit=fit.json"], "beside stages.proxies.swarm, to which a law"),
        (["stages.proxies.swarm.mixtures=1"], "swarm.mixtures is 1: it must be ≥ 2"),
        (["stages.proxies.swarm.mixtures=many"], "swarm.mixtures"),
        (["stages.proxies.swarm.design=orcle"], "swarm.design is 'orcle'; did you mean 'oracle'"),
        (
            ["stages.proxies.fit.law=mixmin"],
            "is 0.0: law mixmin reads a model of each domain alone",
        ),
        (
            [
                "stages.proxies.fit.law=mixmin",
                "stages.proxies.swarm.corners=1",
                "limits.at_most.code=0.5",
            ],
            "limits are set: law mixmin reads a model of each domain alone",
        ),
        (["stages.proxies.swarm.mixtrues=8"], "did you mean 'mixtures'"),
        (["stages.proxies.swarm=8"], "swarm must be a mapping"),
        (["stages.main.swarm={}"], "stages.main has a mixer and a swarm"),
        (["swarm={mixtures: 8}"], "swarm stands in a stage of its own"),
        (["rounds.repeat=[proxies]"], "leave it out of rounds.repeat"),
    ],
)
def test_mistakes_show_when_the_recipe_is_read(recipe, overrides, message):
    with pytest.raises(UserError) as error:
        Plan.make(RecipeFile(recipe(), overrides))
    assert message in str(error.value)
    assert "regmix.yaml" in str(error.value) or "command line" in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stages.proxies.fit.law=linear", "stages.proxies.swarm={mixtures: 2, repeats: 0}"],
            "law linear has 3 parameters for each loss, and there are 2 mixtures: add mixtures",
        ),
        (["stages.proxies.fit.at_most={cod: 0.5}"], "fit.at_most names 'cod'"),
        (
            ["stages.proxies.fit.at_most={code: 0.1, animals: 0.1, numbers: 0.1}"],
            "no mixture keeps them: raise fit.at_most or fit.epochs, or lower fit.tokens",
        ),
        (["stages.proxies.fit.target=cod"], "target is 'cod', which no loss is of"),
        (["target=worst"], "target is worst, which is no mean of losses: name domains with fit.t"),
        (
            ["data.unseen=[code]", "target=code", "stages.proxies.fit.law=bimix"],
            "has none for a loss that is not of a drawn domain: use fit.law exponential",
        ),
    ],
)
def test_a_fit_that_cannot_be_made_is_refused_before_anything_is_prepared(
    recipe, tmp_path, monkeypatch, overrides, message
):
    if "mixtures: 2" in overrides[-1]:
        overrides = [*overrides, "stages.proxies.swarm.corners=0"]
    prepared = []
    monkeypatch.setattr("dograph.experiments.plan.prepare", prepared.append)
    with pytest.raises(UserError) as error:
        experiment(recipe(), *overrides).run()
    assert message in str(error.value)
    assert "stage proxies" in str(error.value) or "command line" in str(error.value)
    assert not prepared
    assert not (tmp_path / "runs").exists()


def test_limits_that_only_sizes_tell_are_refused_before_training(recipe, tmp_path):
    with pytest.raises(UserError, match=r"the limits add up to 0\.\d+: no mixture keeps them"):
        experiment(recipe(), "stages.proxies.fit.tokens=1e9", "stages.proxies.fit.epochs=1").run()
    assert not (tmp_path / "runs").exists()


def test_a_swarm_comes_first_and_something_trains_on_its_fit(small_recipe):
    swarm = "swarm: {mixtures: 4}"
    for stages, message in (
        (f"{{proxies: {{{swarm}}}}}", "no stage trains on what its fit proposes: add one"),
        (f"{{a: {{}}, b: {{{swarm}}}, c: {{}}}}", "put it before stage a: swarms come first"),
        (
            f"{{b: {{{swarm}}}, c: {{mixer: {{init_args: {{w: '${{stages.b.checkpoint}}'}}}}}}}}",
            "stages.b.checkpoint",
        ),
    ):
        with pytest.raises(UserError) as error:
            Plan.make(RecipeFile(small_recipe("wrong", more=f"stages: {stages}\n")))
        assert message in str(error.value)


def test_what_changes_no_number_is_not_in_the_digest(recipe, store):
    def inputs(*overrides):
        plan = Plan.make(RecipeFile(recipe(), overrides))
        return RunInputs(plan.recipes["proxies"].composition.values, store)

    def differs(*overrides):
        digest = Plan.make(RecipeFile(recipe(), overrides)).digest(Corpora())
        return digest != Plan.make(RecipeFile(recipe())).digest(Corpora())

    stage = "stages.proxies"
    same = [f"{stage}.swarm.processes=2", f"{stage}.swarm.threads=1", f"{stage}.fit.folds=5"]
    same += [f"{stage}.swarm.design=regmix", "mixer.class_path=dograph.mixers.Proportional"]
    assert inputs(*same).digest == inputs().digest
    for other in (f"{stage}.swarm.mixtures=5", f"{stage}.fit.law=linear", "seed=1"):
        assert inputs(other).digest != inputs().digest
        assert differs(other)
    assert not differs(*same[:4])


@pytest.fixture(scope="module")
def finished(recipe_text, tmp_path_factory):
    """The recipe, run to its end, and the folder of the experiment."""
    folder = tmp_path_factory.mktemp("swarm")
    path = folder / "regmix.yaml"
    path.write_text(recipe_text("regmix") + f"runs: {folder / 'runs'}\n" + STAGES)
    with pytest.MonkeyPatch.context() as patch:
        from warm import start_warm_run

        patch.setattr("dograph.experiments.sweep.start_run", start_warm_run)
        assert main(["run", str(path)]) == 0
    return path, folder / "runs" / "regmix" / "seed_0"


def members_of(folder):
    return sorted(folder.glob("mixtures/*/*/summary.json"))


def saved_midway(folder):
    """Checkpoints of members that are not finished."""
    saved = folder.glob("mixtures/*/*/checkpoints/step=*.ckpt")
    return [path for path in saved if not (path.parents[1] / "summary.json").exists()]


def test_swarm_fit_and_main_by_themselves(finished):
    _, folder = finished
    proxies, whole = folder / "proxies", content_of(folder)
    assert len(members_of(proxies)) == RUNS
    fit, summary = content_of(proxies, "fit.json"), content_of(proxies)
    assert fit["law"] == summary["fit"]["law"] == "gp"
    assert fit["mixtures"] == 4 + 1
    for key in ("out_of_fold_error", "spearman", "noise"):
        assert summary["fit"][key] == fit["errors"]["target"][key]
    assert whole["fits"] == {"proxies": summary["fit"]}
    assert fit["weights"] == summary["fit"]["weights"]
    drawn = content_of(folder / "main")["weights"]["last"]
    assert drawn == pytest.approx(fit["weights"], abs=1e-6)
    assert [*read_runs([proxies]).sources] == [*fit["sources"]]


def test_the_cost_counts_every_member(finished):
    _, folder = finished
    members = [read_summary(path.parent) for path in members_of(folder / "proxies")]
    stages = {stage["stage"]: stage for stage in content_of(folder)["cost"]["stages"]}
    assert [*stages] == ["proxies", "main"]
    assert stages["proxies"]["tokens"] == sum(run.tokens for run in members)
    assert stages["proxies"]["flops"] == pytest.approx(RUNS * stages["main"]["flops"])
    assert stages["proxies"]["seconds"] > sum(run.seconds for run in members)  # the fit's, too
    (run,) = find_runs([folder.parent.parent])
    assert run.cost["tokens"] == (RUNS + 1) * run.summary.tokens
    assert not unfinished([folder.parent.parent])
    method = method_of(run)
    assert method["proxies"]["swarm.mixtures"] == 4
    assert method["proxies"]["fit.law"] == "gp"
    assert method["main"]["mixer.init_args.weights.code"] == "of stage proxies"


def test_nothing_runs_twice_and_another_law_reads_the_same_runs(finished, capfd):
    path, folder = finished
    before = {file: file.stat().st_mtime_ns for file in folder.glob("**/summary.json")}
    assert main(["run", str(path), "stages.proxies.swarm.processes=2"]) == 0
    assert capfd.readouterr().out.count("finished before, used again") == 2
    changed = {file for file in before if file.stat().st_mtime_ns != before[file]}
    assert changed <= {folder / "summary.json"}
    words = ["run", str(path), "stages.proxies.fit.law=linear", "--stage", "proxies"]
    assert main(words) == 0
    out = capfd.readouterr().out
    assert "proxies_1 (changed: fit.law)" in out
    assert f"{RUNS} runs: {RUNS} finished, 0 to do" in out
    assert content_of(folder / "proxies_1", "fit.json")["law"] == "linear"
    assert not (folder / "proxies_1" / "mixtures").exists()
    assert content_of(folder / "proxies", "fit.json")["law"] == "gp"


def test_reproduce_runs_every_member_again(finished):
    _, folder = finished
    folders = runs_of(folder)
    assert len(folders) == RUNS + 1
    assert folders[-1] == folder / "main"
    assert set(folders[:-1]) == {path.parent for path in members_of(folder / "proxies")}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_swarm_that_was_stopped_in_the_middle_resumes(recipe, tmp_path, number):
    """Real processes: the command and its run end, the same command goes on where they were."""
    path = recipe()
    few = "stages.proxies.swarm={mixtures: 3, corners: 0, repeats: 0}"
    words = ["run", str(path), f"runs={tmp_path}", "trainer.max_steps=150", few]
    log, folder = tmp_path / "log", tmp_path / "regmix" / "seed_0"
    process = start_command(words, log)
    deadline = time.monotonic() + 400
    while not members_of(folder / "proxies") or not any(saved_midway(folder / "proxies")):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    kept = {file: file.stat().st_mtime_ns for file in members_of(folder / "proxies")}
    process.send_signal(number)
    assert process.wait(100) in (130, -9)
    if number == signal.SIGINT:
        assert "Interrupted; nothing lost.\nResume with: lightning run" in log.read_text()
    again = start_command(words, log)
    assert again.wait(400) == 0, log.read_text()
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(members_of(folder / "proxies")) == 3
    assert [stage["stage"] for stage in content_of(folder)["cost"]["stages"]] == ["proxies", "main"]


@pytest.mark.slow
def test_mixmin_is_a_swarm_of_one_model_a_domain(small_recipe, tmp_path):
    """The target's own domain is proposed, and the main run draws it; alone it runs the stage."""
    alone = "mixtures: 0, corners: 1, repeats: 0"
    stages = STAGES.replace("mixtures: 4, corners: 0, repeats: 2", alone)
    path = small_recipe("mixmin", more=stages.replace("law: gp", "law: mixmin") + "target: code\n")
    assert main(["run", str(path)]) == 0
    folder = tmp_path / "runs" / "mixmin" / "seed_0"
    fit = content_of(folder / "proxies", "fit.json")
    assert fit["law"] == "mixmin" and fit["rows"] == 3 and fit["weights"]["code"] > 0.9
    assert content_of(folder / "main")["domains"]["code"]["share"] > 0.9
