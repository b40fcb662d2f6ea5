"""A message names a remedy, and the remedy works: each is followed here to its success."""

import json
import os
import re
import shutil
from types import SimpleNamespace

import pytest
import yaml

from dograph.cli.main import main
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings

SCHEDULE = "mixer.class_path=dograph.mixers.DoGraphSchedule"
MEASURES = (
    "mixer={class_path: dograph.mixers.DoGraphSchedule, "
    "init_args: {interval: 1, measure: 1, skip: 0, probe: PROBE}}"
)
UNSEEN = ("data.unseen=[animals]", "target=animals")
CHECKED = {
    # cause: (overrides, what the message says, overrides after the remedy)
    "figures more often than windows": (
        ["report.figures_every=3"],
        r"report\.figures_every is 3: it must be 0 or at least report\.window",
        ["report.figures_every=0"],
    ),
    "a typo": (
        ["mixer.init_args.clutsers=4", SCHEDULE.replace("Schedule", "")],
        "did you mean 'clusters'",
        ["mixer.init_args.clusters=4", SCHEDULE.replace("Schedule", "")],
    ),
    "a typo in the network": (
        ["model.config.n_hed=2"],
        "did you mean 'n_head'",
        ["model.config.n_head=2"],
    ),
    "a class by its name": (
        ["trainer.strategy=lightning.pytorch.strategies.SingleDeviceStrategy"],
        r"name a class as {class_path: ",
        ["trainer.strategy={class_path: lightning.pytorch.strategies.DDPStrategy}"],
    ),
    "a class without a module": (
        ["mixer.class_path=Stratified"],
        "write one such as torch.nn.Linear|name",
        ["mixer.class_path=dograph.mixers.Stratified"],
    ),
    "an interpolation of code": (
        ["name=${oc.decode:x}"],
        r"names a key, as in \$\{model\.learning_rate\}, or the environment, as in \$\{oc\.env",
        ["runs=${oc.env:PATH}"],
    ),
}
"""Mistakes that a check finds."""
RUN = {
    "more workers than batches ahead": (
        ["data.workers=1", "data.lookahead=0"],
        r"raise data\.lookahead to at least data\.workers",
        ["data.workers=1", "data.lookahead=1"],
    ),
    "too many workers": (
        ["data.workers=9999", "data.lookahead=9999"],
        r"data\.workers is 9999: lower it for \d+ cores",
        ["data.workers=1", "data.lookahead=8"],
    ),
    "a context longer than a domain": (
        ["data.context=100000"],
        r"lower data\.context",
        ["data.context=16"],
    ),
    "a vocabulary below the store's": (
        ["model.config.vocab_size=100"],
        r"model\.config\.vocab_size is 100.*leave it out",
        [],
    ),
    "a network with too short a context": (
        ["model.config.max_position_embeddings=8"],
        r"lower data\.context, or leave the model's own maximum out",
        ["model.config.max_position_embeddings=8", "data.context=8"],
    ),
    "losses that are not finite": (
        ["model.learning_rate=1e30", "model.warmup=0", "report.non_finite_limit=1"],
        r"lower model\.learning_rate and run again",
        ["model.learning_rate=1e-3", "model.warmup=0", "report.non_finite_limit=1"],
    ),
    "more held out than a domain has": (
        [MEASURES.replace("PROBE", "100000"), *UNSEEN],
        r"too few to hold out \d+ of them: lower mixer\.init_args\.probe",
        [MEASURES.replace("PROBE", "2"), *UNSEEN],
    ),
    "a stage of a recipe without": (["--stage", "main"], "leave --stage out", []),
}
"""Mistakes that show once the corpus is there."""


@pytest.fixture(scope="module")
def place(recipe_text, tmp_path_factory):
    """A folder with a small recipe, its finished run, and functions that call commands."""
    folder = tmp_path_factory.mktemp("remedies")
    text = recipe_text("small", steps=4)
    recipe = folder / "small.yaml"
    recipe.write_text(text + f"runs: {folder / 'runs'}\n")
    assert main(["run", str(recipe)]) == 0
    run = folder / "runs" / "small" / "seed_0"
    return SimpleNamespace(folder=folder, recipe=recipe, run=run, text=text)


@pytest.fixture
def say(capsys):
    """Calls a command that is refused; returns what it says."""

    def call(*words):
        capsys.readouterr()
        assert main(list(map(str, words))) == 2, words
        return capsys.readouterr().err

    return call


def works(*words):
    assert main(list(map(str, words))) == 0, words


@pytest.mark.parametrize("cause", CHECKED)
def test_settings_that_a_check_refuses(place, say, cause):
    wrong, message, right = CHECKED[cause]
    assert re.search(message, say("run", place.recipe, "--check", *wrong))
    works("run", place.recipe, "--check", *right)


@pytest.mark.parametrize("cause", RUN)
def test_settings_that_a_run_refuses(place, say, tmp_path, cause):
    wrong, message, right = RUN[cause]
    runs = f"runs={tmp_path}"
    assert re.search(message, say("run", place.recipe, runs, *wrong), re.DOTALL)
    works("run", place.recipe, runs, "trainer.max_steps=1", *right)


def test_a_config_that_is_not_there_is_chosen_from_those_that_are(place, say):
    text = say("run", place.recipe, "--check", "compose.trainer=nothing")
    there = re.search(r"\(there are: ([\w, ]+)\)", text)[1].split(", ")
    for name in there:
        works("run", place.recipe, "--check", f"compose.trainer={name}", "trainer.accelerator=cpu")


def test_a_mixer_of_ones_own_is_named_with_mixers(place, say, tmp_path, monkeypatch):
    own = tmp_path / "remedied_mixer.py"
    own.write_text("from dograph.mixers import Stratified\nclass Own(Stratified):\n    pass\n")
    words = ("run", place.recipe, "--check", "mixer.class_path=remedied_mixer.Own")
    assert "name its file with --mixers, or put its folder on PYTHONPATH" in say(*words)
    monkeypatch.setattr("sys.path", [str(tmp_path), *os.sys.path])
    works(*words, "--mixers", own)


def test_a_finished_run_is_resumed_with_more_steps(place, say, tmp_path):
    run = shutil.copytree(place.run, tmp_path / "runs" / "small" / "seed_0")
    words = ("run", place.recipe, f"runs={tmp_path / 'runs'}", "--resume", run)
    assert "raise trainer.max_steps to resume" in say(*words)
    works(*words, "trainer.max_steps=6")


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew(place, say, tmp_path):
    run = shutil.copytree(place.run, tmp_path / "runs" / "small" / "seed_0")
    (run / "summary.json").unlink()
    for checkpoint in run.glob("checkpoints/*.ckpt"):
        checkpoint.write_bytes(b"damaged")
    words = ("run", place.recipe, f"runs={tmp_path / 'runs'}")
    assert f"move {run / 'checkpoints'} away to begin this run anew" in say(*words)
    (run / "checkpoints").rename(tmp_path / "moved")
    works(*words)
    assert (run / "summary.json").exists()


def test_a_lock_that_is_a_link_is_moved_away(place, say, tmp_path):
    run = shutil.copytree(place.run, tmp_path / "runs" / "small" / "seed_0")
    for name in ("summary.json", "checkpoints/final.ckpt"):
        (run / name).unlink()
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(tmp_path / "mine")
    words = ("run", place.recipe, f"runs={tmp_path / 'runs'}")
    assert f"{run / '.lock'} is a link: move it away" in say(*words)
    (run / ".lock").rename(tmp_path / "moved")
    works(*words)


@pytest.fixture(scope="module")
def staged(place):
    """A recipe with two stages, and its runs' folder, in which nothing has run."""
    folder = place.folder / "staged"
    folder.mkdir()
    content = yaml.safe_load(place.text)
    content["name"], content["runs"] = "staged", str(folder / "runs")
    content["stages"] = {"first": {}, "second": {"trainer": {"max_steps": 2}}}
    recipe = folder / "staged.yaml"
    recipe.write_text(yaml.safe_dump(content))
    return SimpleNamespace(recipe=recipe, runs=folder / "runs")


def test_stages_are_run_in_their_order_and_resume_by_themselves(staged, say):
    words = ("run", staged.recipe, "trainer.max_steps=2")
    text = say(*words, "--stage", "second")
    assert "stage first is not finished: run it first, with --stage first, or the recipe" in text
    works(*words, "--stage", "first")
    works(*words, "--stage", "second")
    text = say(*words, "--resume", staged.runs)
    assert "run it again, without --resume" in text
    works(*words)
    folder = staged.runs / "staged" / "seed_0"
    (folder / "summary.json").write_text('{"folder": 1, "cost"')
    assert "run the recipe again, to write it anew" in say("compare", staged.runs)
    works(*words)
    works("compare", staged.runs, "--baseline", "staged")


def test_files_in_the_way_are_replaced_with_force(place, say, tmp_path):
    output = tmp_path / "out"
    for words in (
        ("export", place.run, "--output", output / "weights.yaml"),
        ("evaluate", place.run, "--output", output / "evaluation.json", "--resamples", 10),
        ("compare", place.run, "--baseline", "small", "--output", output),
    ):
        output.mkdir(exist_ok=True)
        works(*words)
        assert "or add --force" in say(*words)
        works(*words, "--force")


def test_an_export_into_a_missing_folder(place, say, tmp_path):
    words = ("export", place.run, "--output", tmp_path / "new" / "weights.yaml")
    assert "its folder does not exist: make it first" in say(*words)
    (tmp_path / "new").mkdir()
    works(*words)


def test_what_an_evaluation_asks_for(place, say, store, corpus_settings, tmp_path):
    quick = ("--resamples", 10, "--sequences", 2)
    alone = shutil.copy(place.run / "checkpoints" / "final.ckpt", tmp_path / "alone.ckpt")
    assert "name a prepared store with --corpus STORE" in say("evaluate", alone, *quick)
    works("evaluate", alone, *quick, "--corpus", store.path)
    assert "takes at most 16 tokens" in say("evaluate", place.run, "--context", 32)
    works("evaluate", place.run, *quick, "--context", 16)


def store_of(provenance):
    """The store that a run was trained on."""
    return json.loads(provenance.read_text())["corpus"]


def test_a_corpus_is_prepared_with_the_tokenizer_that_an_evaluation_names(
    place, say, corpus_settings, tmp_path
):
    quick = ("--resamples", 10, "--sequences", 2)
    other = CorpusSettings(source=corpus_settings.source, vocab_size=280, store=f"{tmp_path}/other")
    prepare(other, progress=False)
    text = say("evaluate", place.run, *quick, "--corpus", other.store)
    tokenizer = re.search(r"prepare that corpus with corpus\.tokenizer=(\S+)", text)[1]
    lost = shutil.copytree(place.run, tmp_path / "lost")
    origin = lost / "provenance.json"
    origin.write_text(origin.read_text().replace(store_of(origin), str(tmp_path / "gone")))
    text_of_lost = say("evaluate", lost, *quick, "--corpus", other.store)
    assert text_of_lost.endswith("prepare that corpus with that tokenizer\n")
    again = CorpusSettings(
        source=corpus_settings.source, tokenizer=tokenizer, store=f"{tmp_path}/again"
    )
    prepare(again, progress=False)
    works("evaluate", place.run, *quick, "--corpus", again.store)


def test_a_recipe_that_an_evaluation_misses_is_copied_back(place, say, tmp_path):
    run = shutil.copytree(place.run, tmp_path / "run")
    (run / "recipe.yaml").rename(tmp_path / "recipe.yaml")
    assert "copy it beside provenance.json" in say("evaluate", run, "--resamples", 10)
    shutil.copy(tmp_path / "recipe.yaml", run)
    works("evaluate", run, "--resamples", 10)


def test_a_damaged_provenance_is_left_behind(place, say, store, tmp_path):
    run = shutil.copytree(place.run, tmp_path / "run")
    (run / "provenance.json").write_text("{")
    text = say("evaluate", run, "--resamples", 10)
    assert "move the checkpoint elsewhere and name its corpus with --corpus STORE" in text
    moved = shutil.move(run / "checkpoints" / "final.ckpt", tmp_path / "moved.ckpt")
    works("evaluate", moved, "--corpus", store.path, "--context", 16, "--resamples", 10)


def test_what_a_comparison_asks_for(place, say, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(place.run, runs / "small" / "seed_0")
    works("run", place.recipe, f"runs={runs}", "name=short", "trainer.max_steps=2")
    allowed = re.search(r"or add (--allow \S+)", say("compare", runs))[1].split()
    assert "name the baseline: --baseline, one of" in say("compare", runs, *allowed)
    works("compare", runs, "--baseline", "small", *allowed)
    shutil.copytree(runs / "small" / "seed_0", runs / "small" / "seed_0_1")
    text = say("compare", runs, "--baseline", "small", *allowed)
    assert "name the runs to compare one by one" in text
    works("compare", runs / "small" / "seed_0", runs / "short", "--baseline", "small", *allowed)
    assert "--output FOLDER" in say("compare", runs / "short", "--tensorboard")
    board = ("compare", runs / "short", "--baseline", "short", "--tensorboard", "--output")
    (tmp_path / "mine" / "tensorboard").mkdir(parents=True)
    (tmp_path / "mine" / "tensorboard" / "file").write_text("mine")
    assert "name a new or an empty folder" in say(*board, tmp_path / "mine")
    works(*board, tmp_path / "new")


def test_a_run_is_reproduced_by_its_folder(place, say):
    assert "name a folder such as runs/NAME/seed_0" in say("reproduce", place.folder)
    works("reproduce", place.run)
