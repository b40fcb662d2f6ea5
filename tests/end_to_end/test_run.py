"""A whole run through the command line, and everything that it leaves behind, read back."""

import gc
import json
import re
import shutil
import signal
import sys
import time
from html import escape
from pathlib import Path

import pytest
import torch
from outcomes import scalars_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from warm import start_command

from dograph.cli.main import main
from dograph.data.data_mixer import DataMixer
from dograph.training.checkpoint_reader import newest_sound, steps_done

ROOT = Path(__file__).parent.parent.parent
DOMAINS = ("animals", "code", "numbers")
OWN_MIXER = '''
import torch
from dograph.mixers import BaseMixer


class LossSeeker(BaseMixer):
    """Draws more of what is hard: α ∝ exp(sharpness · mean loss)."""

    def __init__(self, sharpness: float = 1.0, update_every: int = 5):
        super().__init__(update_every=update_every, floor=0.1)
        self.sharpness = sharpness

    def update(self, signals):
        means = torch.zeros(len(self.domains), dtype=torch.float64)
        for index in signals.domain.unique():
            means[index] = signals.sequence_loss[signals.domain == index].mean()
        return torch.softmax(self.sharpness * means, dim=0)
'''


def small(settings, runs, *more):
    """Overrides that shrink a recipe to the small corpus and a tiny model."""
    return [
        f"corpus.source={settings.source}",
        f"corpus.store={settings.store}",
        "corpus.vocab_size=300",
        "corpus.validation_fraction=0.2",
        "data.context=32",
        "data.batch_size=16",
        "data.validation_sequences=8",
        "model.config={n_layer: 2, n_embd: 32, n_head: 2}",
        "trainer.max_steps=20",
        "trainer.val_check_interval=8",
        "report={every: 4, figures_every: 8, window: 4, checkpoint_every: 8}",
        f"runs={runs}",
        *more,
    ]


def run(name, settings, runs, *more):
    recipe = str(ROOT / "recipes" / f"{name}.yaml")
    assert main(["run", recipe, *small(settings, runs, *more)]) == 0
    (folder,) = (runs / name).glob("seed_*")
    return folder


@pytest.fixture(scope="module")
def finished(store, corpus_settings, tmp_path_factory):
    """One run of the DoGraph recipe, shrunk."""
    runs = tmp_path_factory.mktemp("runs")
    return run("dograph_gpt2", corpus_settings, runs, "mixer.init_args.clusters=4")


@pytest.fixture(scope="module")
def events(finished):
    accumulator = EventAccumulator(str(finished), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


@pytest.fixture(scope="module")
def scalars(finished):
    return scalars_of(finished)


def test_tensorboard_holds_every_scalar(scalars):
    tags = set(scalars)
    for domain in DOMAINS:
        for kind in ("sampling", "realised", "effective", "tokens", "epochs"):
            assert f"mixture/{kind}/{domain}" in tags
        assert f"validation/loss/{domain}" in tags
        assert f"validation/perplexity/{domain}" in tags
    for tag in (
        "validation/mean_loss",
        "validation/worst_loss",
        "validation/mean_perplexity",
        "validation/worst_perplexity",
        "mixer/effective_clusters",
        "mixer/mutual_information",
        "mixer/solver_milliseconds",
        "mixer/solver_optimal",
        "speed/tokens_per_second",
        "train/loss",
    ):
        assert tag in tags, tag


def test_no_chart_is_of_one_domain_alone(finished):
    tags = EventAccumulator(str(finished)).Reload().Tags()["scalars"]
    assert not [tag for tag in tags if tag.rpartition("/")[2] in DOMAINS]
    (files,) = {len(list(each.iterdir())) for each in (finished / "domains").iterdir()}
    assert files == 1


def test_scalars_tell_the_truth(scalars):
    def last(tag):
        return scalars[tag][-1][1]

    for kind in ("realised", "effective", "sampling"):
        shares = [last(f"mixture/{kind}/{domain}") for domain in DOMAINS]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert sum(last(f"mixture/tokens/{domain}") for domain in DOMAINS) == 20 * 16 * 32
    steps = [step for step, _ in scalars["validation/mean_loss"]]
    assert steps == [8, 16, 20]
    losses = [last(f"validation/loss/{domain}") for domain in DOMAINS]
    assert last("validation/mean_loss") == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert last("validation/worst_loss") == pytest.approx(max(losses), rel=1e-5)
    assert 1 <= last("mixer/effective_clusters") <= 4
    curve = [value for _, value in scalars["validation/mean_loss"]]
    assert curve[-1] < curve[0]


def test_tensorboard_holds_every_figure(events, finished):
    images = set(events.Tags()["images"])
    for tag in (
        "figures/domain_graph",
        "figures/gradient_directions",
        "figures/gradient_directions_early_and_late",
        "figures/weight_trajectories",
    ):
        assert tag in images, tag
        assert events.Images(tag)[-1].width > 300
    assert list((finished / "figures").glob("*.png"))


def test_tensorboard_holds_charts_and_hyperparameters(events, finished):
    tensors = set(events.Tags()["tensors"])
    assert any("custom_scalars" in tag for tag in tensors)
    assert "final/validation/mean_loss" in events.Tags()["scalars"] or any(
        tag.startswith("final/") for tag in events.Tags()["scalars"]
    )
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    assert b"mixer" in plugin.content


def test_the_run_has_a_page_that_needs_no_other_file(finished, tmp_path, capsys):
    page = (finished / "report.html").read_text()
    assert not re.search(r"<script|<link|src=\"(?!data:)|url\((?!#)|@import", page)
    assert page.count("<svg") == 4
    assert page.count('src="data:image/png;base64,') == 2
    for words in (*DOMAINS, "dograph_gpt2, seed 0", "finished after 20 steps", "clusters 4"):
        assert words in page
    command = json.loads((finished / "provenance.json").read_text())["command"]
    assert all(escape(word) in page for word in command)
    training = tmp_path / "training"
    shutil.copytree(finished, training)
    for name in ("summary.json", "report.html"):
        (training / name).unlink()
    assert main(["report", str(training)]) == 0
    assert str(training / "report.html") in capsys.readouterr().out
    assert "not finished: step 20 of 20" in (training / "report.html").read_text()


def test_the_run_folder_says_what_was_run(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary["domains"]) == set(DOMAINS)
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["seed"] == 0
    assert len(provenance["fingerprint"]) == 32
    assert "torch" in provenance["versions"]
    assert "clusters: 4" in (finished / "recipe.yaml").read_text()


def test_checkpoints_load_without_executing_code(finished):
    names = sorted(file.name for file in (finished / "checkpoints").iterdir())
    assert names == ["final.ckpt", "step=16.ckpt", "step=8.ckpt"]
    for name in names:
        checkpoint = torch.load(finished / "checkpoints" / name, weights_only=True)
        assert checkpoint["global_step"] in (8, 16, 20)


def test_the_table_and_the_way_to_tensorboard_are_printed(
    store, corpus_settings, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "160")
    run("uniform_gpt2", corpus_settings, tmp_path, "trainer.max_steps=4")
    out = capfd.readouterr().out
    for domain in DOMAINS:
        assert domain in out
    assert "worst" in out
    assert "tensorboard --logdir" in out


def test_a_run_leaves_no_signal_handler_and_no_text_open(store, corpus_settings, tmp_path):
    """Lightning's handler would ignore SIGTERM from then on, and keep the run's memory."""
    before = [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)]
    others = mixers_in_memory()
    run("uniform_gpt2", corpus_settings, tmp_path, "report.figures_every=0")
    assert [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)] == before
    assert mixers_in_memory() <= others


def mixers_in_memory():
    gc.collect()
    return {id(each) for each in gc.get_objects() if type(each) is DataMixer}


def test_nothing_is_overwritten(store, corpus_settings, tmp_path):
    for expected in ("seed_0", "seed_0_1"):
        recipe = str(ROOT / "recipes" / "uniform_gpt2.yaml")
        assert main(["run", recipe, *small(corpus_settings, tmp_path, "trainer.max_steps=2")]) == 0
        assert (tmp_path / "uniform_gpt2" / expected / "summary.json").is_file()


def test_the_same_recipe_twice_gives_bitwise_the_same_losses(finished, corpus_settings, tmp_path):
    """Figures and loader processes change nothing."""
    more = ("mixer.init_args.clusters=4", "data.workers=1", "report.figures_every=0")
    again = run("dograph_gpt2", corpus_settings, tmp_path, *more)
    first, second = (
        json.loads((folder / "summary.json").read_text())["domains"] for folder in (finished, again)
    )
    for domain in DOMAINS:
        assert first[domain]["validation_loss"] == second[domain]["validation_loss"]


def test_a_mixer_of_ones_own_runs_by_its_import_path(store, corpus_settings, tmp_path, monkeypatch):
    assert len(OWN_MIXER.strip().splitlines()) < 30
    (tmp_path / "loss_seeker.py").write_text(OWN_MIXER)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "compose: {data: environment, model: gpt2_nano, trainer: cpu}\n"
        "mixer: {class_path: loss_seeker.LossSeeker, init_args: {sharpness: 2.0}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    overrides = small(corpus_settings, tmp_path / "runs")
    assert main(["run", "mine.yaml", *overrides, "--mixers", "."]) == 0
    del sys.modules["loss_seeker"]
    summary = json.loads((tmp_path / "runs" / "mine" / "seed_0" / "summary.json").read_text())
    assert summary["mixer"] == "LossSeeker"
    weights = [domain["weight"] for domain in summary["domains"].values()]
    assert sum(weights) == pytest.approx(1)
    assert max(weights) > min(weights)


STEPS = 60
INTERRUPTED = (
    *(f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={STEPS}"),
    *("report.figures_every=0", "trainer.enable_progress_bar=false"),
)
"""What a run needs that is interrupted at its first checkpoint, and that must not end before."""


def interrupt_and_resume(recipe, overrides, runs):
    """Interrupts a run after its first checkpoint, resumes it, runs it whole beside it."""
    command, log = ["run", str(recipe), *overrides], runs / "log"
    folder = runs / recipe.stem / "seed_0"
    checkpoints = folder / "checkpoints"
    process = start_command(command, log)
    deadline = time.monotonic() + 90
    while not list(checkpoints.glob("*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, out = process.wait(60), log.read_text()
    assert code == 130, out
    assert "Interrupted" in out
    assert "Traceback" not in out
    assert 8 <= steps_done(newest_sound(folder)) < STEPS
    for more in ([], [f"runs={runs / 'whole'}"]):  # the same command resumes
        assert start_command(command + more, log).wait(240) == 0, log.read_text()
    assert not folder.with_name("seed_0_1").exists()
    whole = runs / "whole" / recipe.stem / "seed_0"
    return [
        torch.load(end / "checkpoints" / "final.ckpt", weights_only=True) for end in (folder, whole)
    ]


def assert_same_end(resumed, whole):
    for name, value in resumed["state_dict"].items():
        assert torch.equal(value, whole["state_dict"][name]), name
    states = [end["DataMixer"] for end in (resumed, whole)]
    assert torch.equal(states[0]["mixer"]["weights"], states[1]["mixer"]["weights"])
    assert states[0]["sampler"]["realised"] == states[1]["sampler"]["realised"]
    assert states[0]["sampler"]["orders"] == states[1]["sampler"]["orders"]


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_to_resume_from(store, corpus_settings, tmp_path):
    """An interrupted and resumed run ends as the uninterrupted one does, bitwise."""
    overrides = small(corpus_settings, tmp_path, *INTERRUPTED, "trainer.val_check_interval=30")
    recipe = ROOT / "recipes" / "dograph_gpt2.yaml"
    assert_same_end(*interrupt_and_resume(recipe, overrides, tmp_path))


def test_a_schedules_pictures_and_scalars_are_there(store, corpus_settings, tmp_path):
    settings = "{interval: 4, measure: 8, skip: 0}"
    aim = ("target=code", f"mixer.init_args={settings}", "report.figures_every=20")
    folder = run("dograph_schedule_gpt2", corpus_settings, tmp_path, *aim)
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()
    assert {"figures/schedule", "figures/domain_graph"} <= set(events.Tags()["images"])
    tags = set(scalars_of(folder))
    for tag in ("term/influence", "influence/code", "influence_error/animals", "solver_optimal"):
        assert f"mixer/{tag}" in tags
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["weights"]["average"] != summary["weights"]["last"]


@pytest.mark.slow
def test_a_schedule_resumes_bitwise(store, corpus_settings, tmp_path):
    """Gradients, kernel, graph and record resume as if never interrupted."""
    settings = "{interval: 4, measure: 30, skip: 4}"
    more = [f"mixer.init_args={settings}", "data.workers=2"]
    overrides = small(corpus_settings, tmp_path, *INTERRUPTED, *more)
    recipe = ROOT / "recipes" / "dograph_schedule_gpt2.yaml"
    assert_same_end(*interrupt_and_resume(recipe, overrides, tmp_path))


@pytest.mark.slow
def test_resume_is_bitwise_with_moving_weights_workers_and_accumulation(
    store, corpus_settings, tmp_path, monkeypatch
):
    """A step of several batches, some of them in flight, is resumed as it was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loss_seeker.py").write_text(OWN_MIXER)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "compose: {data: environment, model: gpt2_nano, trainer: cpu}\n"
        "mixer: {class_path: loss_seeker.LossSeeker, init_args: {update_every: 1}}\n"
    )
    more = ["data.workers=2", "data.batch_size=8", "trainer.accumulate_grad_batches=2"]
    overrides = small(corpus_settings, tmp_path, *INTERRUPTED, *more)
    words = [*overrides, "--mixers", "."]
    assert_same_end(*interrupt_and_resume(recipe, words, tmp_path))


def test_a_corpus_without_held_out_text_trains_without_validation(
    corpus_settings, tmp_path, recwarn
):
    more = ("corpus.validation_fraction=0", f"corpus.store={tmp_path / 'store'}")
    more += ("report.figures_every=0",)
    run("uniform_gpt2", corpus_settings, tmp_path / "runs", *more)
    folder = tmp_path / "runs" / "uniform_gpt2" / "seed_0"
    summary = json.loads((folder / "summary.json").read_text())
    losses = [domain["validation_loss"] for domain in summary["domains"].values()]
    assert losses == [None] * 3
    assert (folder / "checkpoints" / "step=16.ckpt").exists()  # a step with a validation, else
    assert not [str(entry.message) for entry in recwarn if "is zero" in str(entry.message)]
