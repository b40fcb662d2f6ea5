"""Recipes with stages: from a reference to a main run, used again, resumed, repeated."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from outcomes import scalars_of
from test_run import DOMAINS, ROOT, small
from warm import start_command

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.plan import Plan, largest_move
from dograph.experiments.recipe.compose import RecipeFile


def quick(settings, runs, *more):
    """Overrides for the least that still has checkpoints and validation."""
    report = "report={every: 4, figures_every: 0, window: 1, checkpoint_every: 4}"
    return small(
        settings, runs, "trainer.max_steps=6", "trainer.val_check_interval=6", report, *more
    )


def call(name, settings, runs, *more, options=()):
    return main(
        ["run", str(ROOT / "recipes" / f"{name}.yaml"), *quick(settings, runs, *more), *options]
    )


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def stages_of(folder):
    return [stage["stage"] for stage in summary_of(folder)["cost"]["stages"]]


@pytest.fixture(scope="module")
def doremi(store, corpus_settings, tmp_path_factory):
    """The experiment folder of DoReMi's three stages."""
    runs = tmp_path_factory.mktemp("doremi")
    assert call("doremi_gpt2", corpus_settings, runs) == 0
    return runs / "doremi_gpt2" / "seed_0"


def test_every_stage_hands_over_what_the_next_one_needs(doremi):
    visible = {path.name for path in doremi.iterdir() if not path.name.startswith(".")}
    assert visible == {
        "reference",
        "proxy",
        "main",
        "summary.json",
    }
    proxy, main_run = summary_of(doremi / "proxy"), summary_of(doremi / "main")
    assert proxy["mixer"] == "DoReMi"
    chosen = proxy["weights"]["average"]
    assert sum(chosen.values()) == pytest.approx(1)
    assert main_run["weights"]["last"] == pytest.approx(chosen)
    assert "final.ckpt" in (doremi / "proxy" / "recipe.yaml").read_text()
    # The proxy drew evenly, the reference by size, the main run by what the proxy chose.
    shares = [summary_of(doremi / name)["domains"] for name in ("reference", "proxy", "main")]
    assert shares[1]["code"]["share"] == pytest.approx(1 / 3, abs=0.02)
    assert shares[0]["code"]["share"] > shares[0]["animals"]["share"] + 0.1
    assert shares[2]["code"]["share"] == pytest.approx(chosen["code"], abs=0.02)


def test_the_cost_counts_every_stage(doremi):
    cost = summary_of(doremi)["cost"]
    assert stages_of(doremi) == ["reference", "proxy", "main"]
    for key in ("tokens", "flops", "seconds"):
        assert cost["total"][key] == pytest.approx(sum(stage[key] for stage in cost["stages"]))
    flops = {stage["stage"]: stage["flops"] for stage in cost["stages"]}
    # A proxy's step has a forward pass of the reference beside forward and backward.
    assert flops["proxy"] == pytest.approx(4 / 3 * flops["reference"])
    assert flops["main"] == flops["reference"]
    assert summary_of(doremi)["losses"] == summary_of(doremi / "main")["losses"]


def test_one_tensorboard_tree_shows_every_stages_weights(doremi):
    for name in ("reference", "proxy", "main"):
        scalars = scalars_of(doremi / name)
        total = sum(scalars[f"mixture/weights/{domain}"][-1][1] for domain in DOMAINS)
        assert total == pytest.approx(1, abs=1e-5)
    tags = scalars_of(doremi / "proxy")
    assert all(f"mixer/excess_loss/{domain}" in tags for domain in DOMAINS)


def test_a_second_call_uses_what_is_finished_and_a_changed_stage_runs_anew(
    doremi, corpus_settings, capfd, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    runs = doremi.parent.parent
    before = (doremi / "proxy" / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    assert call("doremi_gpt2", corpus_settings, runs, "report.every=2") == 0
    out = capfd.readouterr().out
    assert out.count("finished before, used again") == 3
    assert (doremi / "proxy" / "checkpoints" / "final.ckpt").stat().st_mtime_ns == before
    # Another proxy: its own run and the main run's are new, the reference stays, nothing is lost.
    override = "stages.proxy.mixer.init_args.step_size=3.0"
    assert call("doremi_gpt2", corpus_settings, runs, override) == 0
    out = capfd.readouterr().out
    assert out.count("finished before, used again") == 1
    assert "proxy_1 (changed: mixer.init_args.step_size)" in out
    assert "main_1 (changed: mixer.init_args.weights" in out
    assert (doremi / "main_1" / "summary.json").is_file()
    assert (doremi / "main" / "summary.json").is_file()


def test_one_stage_alone(store, corpus_settings, tmp_path, capsys):
    assert call("doge_gpt2", corpus_settings, tmp_path, options=["--stage", "main"]) == 2
    assert "stage proxy is not finished" in capsys.readouterr().err
    assert call("doge_gpt2", corpus_settings, tmp_path, options=["--stage", "proxy"]) == 0
    folder = tmp_path / "doge_gpt2" / "seed_0"
    assert [path.name for path in folder.glob("[!.]*")] == ["proxy"]
    assert call("doge_gpt2", corpus_settings, tmp_path, options=["--stage", "main"]) == 0
    assert summary_of(folder / "main")["mixer"] == "Fixed"
    assert call("doge_gpt2", corpus_settings, tmp_path, options=["--stage", "mian"]) == 2
    assert call("uniform_gpt2", corpus_settings, tmp_path, options=["--stage", "main"]) == 2


def test_rounds_start_from_the_mixture_that_was_chosen(store, corpus_settings, tmp_path, capfd):
    short = ["trainer.max_steps=2", "rounds.at_most=2"]
    assert call("doremi_gpt2", corpus_settings, tmp_path, *short) == 0
    out = capfd.readouterr().out
    assert "round 1: the largest move of a weight" in out
    folder = tmp_path / "doremi_gpt2" / "seed_0"
    first = summary_of(folder / "proxy")["weights"]["average"]
    assert summary_of(folder / "reference_round2")["weights"]["last"] == pytest.approx(first)
    second = summary_of(folder / "proxy_round2")["weights"]["average"]
    assert summary_of(folder / "main")["weights"]["last"] == pytest.approx(second)
    assert stages_of(folder) == ["reference", "proxy", "reference_round2", "proxy_round2", "main"]
    # Each round's runs have names of their own.
    options = ["--stage", "proxy_round2"]
    assert call("doremi_gpt2", corpus_settings, tmp_path, *short, options=options) == 0
    assert "stage proxy_round2: finished before" in capfd.readouterr().out
    options = ["--stage", "proxy_round3"]
    assert call("doremi_gpt2", corpus_settings, tmp_path, *short, options=options) == 2
    # A tolerance that any move meets ends with the first round.
    assert call("doremi_gpt2", corpus_settings, tmp_path, *short, "rounds.tolerance=1.0") == 0
    assert stages_of(folder) == ["reference", "proxy", "main"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: 3\n", "stages maps names"),
        ("stages: {a/b: {}}\n", "letters, digits and _ only"),
        ("stages: {a: 4}\n", "stages.a must be a mapping"),
        ("stages: ${nope}\n", "stages maps names"),
        ("stages: ???\n", "stages maps names"),
        ("stages: {a: {rounds: {}}}\n", "unknown key 'rounds'"),
        (
            "mixer: {class_path: dograph.mixers.Stratified}\n"
            "stages: {a: {}, b: {model: {config: {n_embdd: 8}}}}\n",
            "n_embdd",
        ),
        (
            "mixer: {class_path: dograph.mixers.Stratified}\n"
            "stages: {a: {}, b: {trainer: {max_steps: 0}}}\n",
            "trainer.max_steps is 0",
        ),
        ("stages: {a: {mixr: 1}}\n", "did you mean 'mixer'"),
        ("stages: {a: {stages: {b: 1}}}\n", "mixer must name a class"),
        ("rounds: {repeat: [b], at_most: 2}\nstages: {a: {}}\n", "follow one another"),
        ("rounds: {repeat: [a], at_mots: 2}\nstages: {a: {}}\n", "did you mean 'at_most'"),
        ("rounds: {repeat: [a], at_most: 0}\nstages: {a: {}}\n", "must be ≥ 1"),
        (
            "mixer: {class_path: dograph.mixers.DoReMi}\nstages: {a: {}}\n",
            "mixer.init_args",
        ),
        (
            "mixer: {class_path: dograph.mixers.Stratified}\n"
            "stages: {a: {}, b: {runs: elsewhere}}\n",
            "the same for all stages",
        ),
        (
            "mixer: {class_path: dograph.mixers.Fixed, init_args: {weights: '${stages.b.weights}'}}"
            "\nstages: {a: {}, b: {}}\n",
            "stages.b.weights",
        ),
    ],
)
def test_mistakes_show_before_any_training(tmp_path, text, expected):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("compose: {data: environment, model: gpt2_nano, trainer: cpu}\n" + text)
    with pytest.raises(UserError) as caught:
        Plan.make(RecipeFile(recipe))
    assert expected in str(caught.value)
    assert "wrong.yaml" in str(caught.value)


@pytest.mark.parametrize("override", ["stages=5", "stages.main=5", "stages.mian.seed=5"])
def test_mistakes_in_overrides_of_stages_are_the_command_lines(override, capsys):
    assert main(["run", str(ROOT / "recipes" / "doge_gpt2.yaml"), override]) == 2
    assert "command line" in capsys.readouterr().err


def test_stages_with_other_processes_run_one_by_one(tmp_path, capsys):
    recipe = str(ROOT / "recipes" / "doge_gpt2.yaml")
    overrides = ["stages.proxy.trainer.devices=2", f"runs={tmp_path}"]
    assert main(["run", recipe, *overrides]) == 2
    assert "trainer.devices differs between stages (2, 1)" in capsys.readouterr().err


def test_a_stage_whose_files_are_gone_runs_anew(store, corpus_settings, tmp_path, capfd):
    proxy = ["--stage", "proxy"]
    assert call("doge_gpt2", corpus_settings, tmp_path, options=proxy) == 0
    folder = tmp_path / "doge_gpt2" / "seed_0"
    (folder / "proxy" / "checkpoints" / "final.ckpt").unlink()
    assert call("doge_gpt2", corpus_settings, tmp_path, options=proxy) == 0
    assert "final.ckpt gone from" in capfd.readouterr().out
    assert (folder / "proxy_1" / "checkpoints" / "final.ckpt").is_file()
    (folder / "proxy_1" / "stage.json").write_text("{")
    assert call("doge_gpt2", corpus_settings, tmp_path, options=proxy) == 0
    assert (folder / "proxy_2" / "summary.json").is_file()


def test_a_run_without_stages_is_not_written_over(store, corpus_settings, tmp_path, capsys):
    assert call("uniform_gpt2", corpus_settings, tmp_path, "name=same") == 0
    assert call("doge_gpt2", corpus_settings, tmp_path, "name=same") == 2
    assert "holds a run of a recipe without stages" in capsys.readouterr().err


@pytest.mark.slow
def test_two_calls_at_once_take_turns(store, corpus_settings, tmp_path):
    """Two processes that want the same stages: one trains, the other waits for its results."""
    command = ["run", str(ROOT / "recipes" / "doge_gpt2.yaml")]
    command += quick(corpus_settings, tmp_path, "trainer.max_steps=30")
    logs = [tmp_path / "first", tmp_path / "second"]
    both = [start_command(command, log) for log in logs]
    codes, outs = [process.wait(200) for process in both], [log.read_text() for log in logs]
    assert codes == [0, 0], outs
    assert sorted(out.count("finished before, used again") for out in outs) == [0, 2]
    assert sum("waiting for it" in out for out in outs) == 1
    assert not list((tmp_path / "doge_gpt2" / "seed_0").glob("*_1"))


@pytest.mark.slow
def test_stages_on_two_processes(store, corpus_settings, tmp_path):
    """All stages by two ranks: one table, one run of each, used again by the next call."""
    recipe = str(ROOT / "recipes" / "doremi_gpt2.yaml")
    command = [sys.executable, "-m", "dograph", "run", recipe]
    command += quick(corpus_settings, tmp_path, "trainer.devices=2", "trainer.strategy=ddp")
    for expected in (0, 3):
        done = subprocess.run(command, timeout=200, capture_output=True, check=False)
        out = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, out
        assert out.count("finished before, used again") == expected
        assert out.count("Open TensorBoard") == 1
    folder = tmp_path / "doremi_gpt2" / "seed_0"
    visible = sorted(path.name for path in folder.glob("[!.]*"))
    assert visible == ["main", "proxy", "reference", "summary.json"]


def test_resume_is_for_recipes_of_one_run(tmp_path, capsys):
    recipe = str(ROOT / "recipes" / "doge_gpt2.yaml")
    assert main(["run", recipe, "--resume", str(tmp_path)]) == 2
    assert "resume by themselves" in capsys.readouterr().err


def test_check_prints_every_stage(capsys):
    assert main(["run", str(ROOT / "recipes" / "doremi_gpt2.yaml"), "--check"]) == 0
    out = capsys.readouterr().out
    assert out.count("---\n") == 2
    assert "dograph.mixers.Proportional" in out and "dograph.mixers.DoReMi" in out


def test_the_largest_move_is_of_one_domain():
    assert largest_move({"a": 0.5, "b": 0.5}, {"a": 0.3, "b": 0.7}) == pytest.approx(0.2)


@pytest.mark.slow
def test_interrupted_in_the_proxy_it_resumes_there(store, corpus_settings, tmp_path):
    """By Ctrl-C and by kill -9: the run ends as the uninterrupted one does, bitwise."""
    name, log = "doremi_gpt2", tmp_path / "log"
    long = ["stages.proxy.trainer.max_steps=80", "trainer.val_check_interval=80"]
    checkpoints = "report={every: 4, figures_every: 0, window: 1, checkpoint_every: 10}"
    overrides = quick(corpus_settings, tmp_path / "runs", *long, checkpoints)
    command = ["run", str(ROOT / "recipes" / f"{name}.yaml")]
    proxy = tmp_path / "runs" / name / "seed_0" / "proxy" / "checkpoints"
    for stop in (signal.SIGINT, signal.SIGKILL):
        before = set(proxy.glob("*.ckpt"))
        process = start_command(command + overrides, log)
        deadline = time.monotonic() + 90
        while not set(proxy.glob("*.ckpt")) - before and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(stop)
        assert process.wait(60) == (130 if stop == signal.SIGINT else -9), log.read_text()
    assert start_command(command + overrides, tmp_path / "again").wait(240) == 0
    assert "stage proxy: resumes from" in (tmp_path / "again").read_text()
    assert not list((tmp_path / "runs" / name / "seed_0").glob("*_1"))
    whole = quick(corpus_settings, tmp_path / "whole", *long, checkpoints)
    assert start_command(command + whole, log).wait(240) == 0, log.read_text()
    for stage in ("proxy", "main"):
        ends = [
            torch.load(
                tmp_path / runs / name / "seed_0" / stage / "checkpoints" / "final.ckpt",
                weights_only=True,
            )
            for runs in ("runs", "whole")
        ]
        assert all(map(torch.equal, ends[0]["state_dict"].values(), ends[1]["state_dict"].values()))
    summaries = [
        summary_of(tmp_path / runs / name / "seed_0" / "proxy") for runs in ("runs", "whole")
    ]
    assert summaries[0]["weights"] == summaries[1]["weights"]
