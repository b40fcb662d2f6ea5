"""A resumed run's changed keys take effect or are refused; an unfinished run is named."""

import json
import shutil

import pytest
import torch

from dograph.cli.main import main
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import find_store
from dograph.errors import UserError
from dograph.experiments.comparison.comparison import compare
from dograph.experiments.corpus_changes import corpus_changes
from dograph.experiments.open_run import place_for
from dograph.experiments.provenance import read_provenance
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.recipe.keys import KEYS
from dograph.experiments.reproduction import reproduce
from dograph.experiments.resume import check_inputs, passed_over
from dograph.experiments.run import run
from dograph.experiments.run_inputs import RunInputs, input_changes
from dograph.experiments.stages import find_folder
from dograph.files.atomic import write_json
from dograph.files.run_dir import FINAL_CHECKPOINT, PROVENANCE, RECIPE, STAGE, SUMMARY


@pytest.fixture
def first(small_recipe):
    """A run of four steps, to be resumed for more; its recipe's path and folder."""
    path = small_recipe("small", steps=4)
    return path, run(check(compose(path)))


@pytest.fixture(scope="session")
def grown(corpus_folder, tmp_path_factory):
    """The small corpus with a grown, a renamed, an added and a removed domain."""
    folder = tmp_path_factory.mktemp("grown")
    text = shutil.copytree(corpus_folder, folder / "text")
    (text / "code.jsonl").rename(text / "programs.jsonl")
    (text / "numbers.jsonl").unlink()
    for name, count in (("animals", 5), ("prose", 60)):
        lines = [json.dumps({"text": f"new {name} {i} " * 40}) + "\n" for i in range(count)]
        with (text / f"{name}.jsonl").open("a") as file:
            file.writelines(lines)
    settings = CorpusSettings(
        source=str(text), vocab_size=300, store=str(folder / "store"), validation_fraction=0.2
    )
    return prepare(settings, progress=False)


def resume(path, folder, *changes):
    recipe = check(compose(path, ["trainer.max_steps=8", *changes]))
    return run(recipe, folder)


def inputs_of(path, store, *changes):
    return RunInputs(compose(path, changes).values, store)


def test_the_optimiser_follows_the_recipe_that_it_is_resumed_under(first, tmp_path, capfd):
    path, folder = first
    as_it_was = shutil.copytree(folder, tmp_path / "copy")
    changes = {"model.learning_rate": 1e-4, "model.weight_decay": 5.0, "model.betas": [0.5, 0.6]}
    assert {key for key, row in KEYS.items() if row.restored and row.may_change} == set(changes)
    resume(path, folder, *(f"{key}={value}" for key, value in changes.items()))
    shown = capfd.readouterr().out
    assert all(f"{key} (" in shown for key in changes)
    checkpoint = torch.load(folder / FINAL_CHECKPOINT, weights_only=True)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [5.0, 0.0]
    for group in groups:
        assert group["initial_lr"] == 1e-4 and tuple(group["betas"]) == (0.5, 0.6)
    assert checkpoint["lr_schedulers"][0]["base_lrs"] == [1e-4, 1e-4]
    resume(path, as_it_was)
    losses = [json.loads((each / SUMMARY).read_text())["losses"] for each in (folder, as_it_was)]
    assert losses[0] != losses[1]


def test_a_run_of_two_recipes_is_marked_wherever_it_is_read(first, capfd, tmp_path):
    path, folder = first
    resume(path, folder, "model.learning_rate=1e-4")
    text = "at step 4 "
    provenance = read_provenance(folder)
    assert provenance["digest"] is None and len(provenance["gone_on_with"]) == 1
    with pytest.raises(UserError, match=r"resumed under another recipe.*model\.learning_rate"):
        reproduce(folder)
    with pytest.raises(UserError, match=r"(?s)small/seed_0: at step 4 .*model\.learning_rate"):
        compare([folder])
    notes = compare([folder], allowed=["training"]).notes
    assert any(f"{folder}: {text}" in note and "model.learning_rate" in note for note in notes)
    capfd.readouterr()
    assert main(["export", str(folder)]) == 0
    out, err = capfd.readouterr()
    assert "resumed under another recipe" not in out and "model.learning_rate" in err
    assert main(["evaluate", str(folder), "--resamples", "2", "--device", "cpu"]) == 0
    assert "Note: the run was resumed under another recipe" in capfd.readouterr().out


def test_a_resume_that_changes_no_number_leaves_no_mark(small_recipe):
    path = small_recipe("small", steps=8)
    folder = run(check(compose(path)))
    (folder / SUMMARY).unlink()  # as if it had been killed after its checkpoint of step 4
    (folder / FINAL_CHECKPOINT).unlink()
    before = {**read_provenance(folder), "commit": "earlier"}
    write_json(folder / PROVENANCE, before)
    assert run(check(compose(path, ["report.every=2", "data.workers=1"]))) == folder
    now = read_provenance(folder)
    assert now["digest"] == before["digest"] and "resumed" not in now
    assert now["earlier_packages"][0]["commit"] == "earlier"
    assert now["earlier_packages"][0]["until"] == 4


def test_a_resume_that_is_refused_leaves_no_mark(first):
    path, folder = first
    before = read_provenance(folder)
    (folder / FINAL_CHECKPOINT).rename(folder / FINAL_CHECKPOINT.parent / "step=3.ckpt")
    with pytest.raises(UserError, match="it says step 3"):
        resume(path, folder, "model.learning_rate=1e-4")
    assert read_provenance(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        "data.context=8",
        "model.config.n_layer=2",
        "mixer.class_path=dograph.mixers.Proportional",
        "trainer.accumulate_grad_batches=2",
        "seed=1",
    ],
)
def test_what_would_not_take_effect_is_refused_with_its_key(first, change):
    path, folder = first
    with pytest.raises(
        UserError, match=rf"command line: {change.split('=')[0]} \(.* → .*\) cannot"
    ):
        resume(path, folder, change)


def test_a_changed_start_of_a_mixer_is_refused_in_any_script(store):
    from dograph.mixers import Fixed

    def mixer(share):
        made = Fixed({"animals": share, "code": 1 - share, "numbers": 1.0})
        made.setup(["animals", "code", "numbers"], [9, 9, 9], 8)
        return made

    state = mixer(0.25).state_dict()
    mixer(0.25).load_state_dict(state)
    with pytest.raises(UserError, match=r"began with the weights \[0\.125, 0\.375, 0\.5\]"):
        mixer(0.75).load_state_dict(state)


def test_another_corpus_is_refused_and_its_domains_are_named(first, store, grown, tmp_path):
    path, folder = first
    inputs = inputs_of(path, grown, "corpus.vocab_size=310")
    named = (
        "code was renamed to programs; numbers was removed; prose was added (60 documents); "
        "animals has changed (5 documents added, 0 removed); the tokenizer is another one; "
        "corpus.vocab_size (300 → 310)"
    )
    with pytest.raises(UserError) as error:
        check_inputs(folder, inputs)
    assert named in str(error.value)
    assert f"set corpus.source={store.path}" in str(error.value)
    # Without the old store the run's own record of its domains serves.
    gone = {**read_provenance(folder), "corpus": str(tmp_path / "gone"), "fingerprint": "0"}
    text = corpus_changes(gone, grown)
    assert "animals has changed (65 documents, it had 60)" in text
    assert "put back the text" in _passed_over(folder, gone, inputs)
    del gone["domains"]
    assert corpus_changes(gone, grown).endswith("gone is gone, and it recorded no domains")


def _passed_over(folder, provenance, inputs):
    (folder / SUMMARY).unlink(missing_ok=True)
    write_json(folder / PROVENANCE, provenance)
    (sentence,) = passed_over(folder.parent, 0, inputs)
    return sentence


def test_the_same_run_is_found_whatever_changes_no_number(first, store, tmp_path):
    path, folder = first
    (folder / SUMMARY).unlink()
    same = ["trainer.enable_progress_bar=false", "data.workers=2", "report.every=3"]
    moved = shutil.copytree(store.path, tmp_path / "moved")
    same += ["corpus.source=/elsewhere", f"corpus.store={moved}", "corpus.workers=1"]
    inputs = inputs_of(path, store, *same)
    assert place_for(folder.parent, 0, inputs) == folder
    assert passed_over(folder.parent, 0, inputs) == []
    # Of a run of an earlier version, which recorded no inputs, the recipe tells them.
    earlier = {k: v for k, v in read_provenance(folder).items() if k not in ("inputs", "domains")}
    write_json(folder / PROVENANCE, {**earlier, "digest": "of other rules"})
    assert place_for(folder.parent, 0, inputs) == folder
    (folder / RECIPE).unlink()
    assert place_for(folder.parent, 0, inputs) == folder.with_name("seed_0_1")
    assert "recipe.yaml: no such file" in passed_over(folder.parent, 0, inputs)[0]


def test_an_unfinished_run_that_is_passed_over_is_named(first, store, capfd):
    path, folder = first
    (folder / SUMMARY).unlink()
    (sentence,) = passed_over(folder.parent, 0, inputs_of(path, store, "model.warmup=3"))
    assert "(final) and not resumed, since it differs in model.warmup (2 → 3)" in sentence
    assert sentence.endswith(f"; to resume it, add --resume {folder}")
    (sentence,) = passed_over(folder.parent, 0, inputs_of(path, store, "data.context=8"))
    assert f"to resume it, give data.context the old value and add --resume {folder}" in sentence
    capfd.readouterr()
    other = run(check(compose(path, ["model.warmup=3"])))
    assert f"{folder} is unfinished" in capfd.readouterr().out
    assert other == folder.with_name("seed_0_1")
    assert passed_over(folder.parent, 1, inputs_of(path, store)) == []


def test_other_chunks_of_the_same_text_are_another_corpus(first, store):
    path, folder = first
    provenance = read_provenance(folder)
    provenance["inputs"]["chunks"] = "cut otherwise"
    write_json(folder / PROVENANCE, provenance)
    with pytest.raises(UserError, match="cut in other chunks"):
        check_inputs(folder, inputs_of(path, store))


def test_a_store_is_looked_for_in_the_cache(store, tmp_path, monkeypatch):
    monkeypatch.setenv("DOGRAPH_CACHE", str(tmp_path))
    gone = tmp_path / "elsewhere" / "small-1"
    assert find_store(store.path, store.fingerprint) == store.path
    assert find_store(gone, store.fingerprint) is None
    copied = shutil.copytree(store.path, tmp_path / "copied")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert find_store(gone, store.fingerprint) == copied
    assert find_store(gone, "another") is None
    assert find_store(store.path, "another") is None  # what is there now is another store


def test_a_copied_run_is_evaluated_on_the_store_of_its_fingerprint(
    first, store, tmp_path, monkeypatch, capfd
):
    _, folder = first
    monkeypatch.setenv("DOGRAPH_CACHE", str(tmp_path / "cache"))
    provenance = {**read_provenance(folder), "corpus": "/another/machine/small-1"}
    write_json(folder / PROVENANCE, provenance)
    words = ["evaluate", str(folder), "--resamples", "2", "--device", "cpu"]
    assert main(words) == 2
    error = capfd.readouterr().err
    assert "/another/machine/small-1, which is not here" in error and "--corpus STORE" in error
    copied = shutil.copytree(store.path, tmp_path / "cache" / "copied")
    assert main(words) == 0
    assert f"Corpus: {copied}" in capfd.readouterr().out


def test_a_stage_of_an_earlier_version_is_used_again(store, tmp_path):
    values = {"name": "staged", "data": {"workers": 2}, "model": {"warmup": 3}}
    record = {"stage": "proxy", "digest": "of other rules", "finished": False}
    record |= {"values": values, "corpus": store.fingerprint, "dograph": "0.0.1"}
    write_json(tmp_path / "proxy" / STAGE, record)
    same = find_folder(tmp_path, "proxy", RunInputs({"model": {"warmup": 3}}, store))
    # Later stages' inputs hold the digest that was recorded.
    assert (same.path, same.digest) == (tmp_path / "proxy", "of other rules")
    other = find_folder(tmp_path, "proxy", RunInputs({"model": {"warmup": 4}}, store))
    assert other.path == tmp_path / "proxy_1"
    assert other.reason == f" (changed: model.warmup; {tmp_path / 'proxy'} stays unfinished)"


def test_another_reference_model_under_the_same_path_is_another_run(first, store, tmp_path):
    path, folder = first
    reference = tmp_path / "reference.ckpt"
    changes = ["mixer.class_path=dograph.mixers.DoReMiOnline"]
    changes += [f"mixer.init_args.reference={reference}"]
    reference.write_bytes(b"one")
    one = inputs_of(path, store, *changes)
    provenance = read_provenance(folder)
    recorded = {**provenance, "inputs": one.content, "digest": one.digest}
    write_json(folder / PROVENANCE, recorded)
    assert inputs_of(path, store, *changes).is_of(folder)
    reference.write_bytes(b"another")
    now = inputs_of(path, store, *changes)
    assert not now.is_of(folder)
    assert [*now.changes_since(folder, recorded)] == ["reference model"]
    del recorded["inputs"]["reference model"]  # as an earlier version recorded them
    write_json(folder / PROVENANCE, {**recorded, "digest": "of other rules"})
    assert now.is_of(folder)


def test_a_run_that_ends_without_a_validation_has_no_final_loss(first):
    """Not that of the last validation before the resume, eight steps earlier."""
    path, folder = first
    resume(path, folder, "trainer.limit_val_batches=0")
    summary = json.loads((folder / SUMMARY).read_text())
    assert summary["steps"] == 8
    assert summary["target_loss"] is None and summary["losses"] == {}


def test_a_validation_counts_the_tokens_of_whole_steps(small_recipe):
    """One in the midst of a step comes before the model has learnt its micro-batches."""
    accumulates = ["trainer.accumulate_grad_batches=3", "trainer.val_check_interval=4"]
    folder = run(check(compose(small_recipe("accumulates", steps=4), accumulates)))
    validations = json.loads((folder / "history.json").read_text())["validations"]
    assert [each["step"] for each in validations] == [1, 2, 4]
    assert [each["tokens"] for each in validations] == [n * 3 * 8 * 16 for n in (1, 2, 4)]


def test_other_weights_under_one_path_are_another_run(small_recipe, store, tmp_path):
    path, pretrained = small_recipe("pretrained"), tmp_path / "weights"
    pretrained.mkdir()
    (pretrained / "model.safetensors").write_bytes(b"one")
    asked = f"model.pretrained={pretrained}"
    one = inputs_of(path, store, asked)
    assert "pretrained model" not in inputs_of(path, store).content
    before = one.content
    (pretrained / "model.safetensors").write_bytes(b"two")
    two = inputs_of(path, store, asked)
    assert list(input_changes(before, two.content)) == ["pretrained model"]
