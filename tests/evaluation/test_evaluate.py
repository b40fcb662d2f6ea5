"""A checkpoint's losses are its run's; other text, bare files and mistakes."""

import json
import math
import shutil

import pytest
import torch

from dograph.cli.main import main
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store
from dograph.data.data_mixer import evenly_spaced
from dograph.data.domains import DomainSequences
from dograph.errors import UserError
from dograph.evaluation.evaluate import evaluate
from dograph.evaluation.evaluated_model import open_evaluated


@pytest.fixture(scope="module")
def evaluated(run_folder):
    return open_evaluated(run_folder, device="cpu")


@pytest.fixture(scope="module")
def found(evaluated):
    return evaluate(evaluated, resamples=100)


@pytest.fixture(scope="module")
def other_store(run_folder, evaluated, tmp_path_factory):
    """Unseen text with the run's tokenizer."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "text").mkdir()
    lines = [json.dumps({"text": f"a bird and a fish {i} naïve ☺ " * 9}) for i in range(40)]
    (folder / "text" / "unseen.jsonl").write_text("\n".join(lines))
    settings = CorpusSettings(
        source=str(folder / "text"),
        store=str(folder / "store"),
        tokenizer=str(evaluated.store.path / "tokenizer.json"),
        validation_fraction=0.4,
    )
    return prepare(settings, progress=False).path


def test_losses_are_those_of_the_runs_last_validation(run_folder, found):
    summary = json.loads((run_folder / "summary.json").read_text())
    assert found.losses == pytest.approx(summary["losses"], abs=1e-6)  # sums of float32 there
    assert found.mean.loss.value == pytest.approx(summary["mean_loss"], abs=1e-6)
    assert found.worst.loss.value == pytest.approx(summary["worst_loss"], abs=1e-6)
    assert found.worst_domain == summary["worst_domain"]
    assert found.target.loss.value == pytest.approx(summary["target_loss"], abs=1e-6)
    assert found.mean.perplexity.value == pytest.approx(summary["mean_perplexity"], rel=1e-5)


def test_bits_per_byte_count_the_text_that_is_predicted(evaluated, found):
    for index, domain in enumerate(found.domains):
        sequences = DomainSequences(evaluated.store, domain.name, "validation", 32)
        (picks,) = evenly_spaced(index, len(sequences), 24, 24)
        decode = evaluated.store.tokenizer().decode
        texts = [decode(sequences[i][1:].tolist(), skip_special_tokens=True) for _, i in picks]
        size = sum(len(text.encode()) for text in texts)
        assert domain.bytes == size
        nats = domain.score.loss.value * domain.tokens
        assert domain.score.bits_per_byte.value == pytest.approx(nats / math.log(2) / size)


def test_the_weighted_mean_counts_by_train_tokens(evaluated, found):
    tokens = {entry.name: entry.train_tokens for entry in evaluated.store.domains}
    expected = sum(found.losses[name] * count for name, count in tokens.items())
    assert found.weighted.loss.value == pytest.approx(expected / sum(tokens.values()))


def test_batches_do_not_matter(evaluated, found):
    other = evaluate(evaluated, batch_size=5, resamples=1)
    assert other.losses == pytest.approx(found.losses, abs=1e-5)


def test_text_of_another_corpus_with_the_same_tokenizer(run_folder, other_store):
    evaluated = open_evaluated(run_folder, other_store, device="cpu")
    found = evaluate(evaluated, sequences=10, resamples=20)
    (domain,) = found.domains
    assert evaluated.on_own_corpus is False
    assert evaluated.final_of == run_folder
    assert domain.sequences == 10
    assert domain.bytes > domain.tokens / 2
    assert math.isfinite(found.mean.loss.value)


def test_another_tokenizer_is_refused_with_the_remedy(run_folder, corpus_folder, tmp_path):
    settings = CorpusSettings(
        source=str(corpus_folder), vocab_size=280, store=str(tmp_path), validation_fraction=0.2
    )
    with pytest.raises(UserError, match=r"prepare that corpus with corpus\.tokenizer=.*tokenizer"):
        open_evaluated(run_folder, prepare(settings, progress=False).path)


def test_a_bare_checkpoint_needs_a_corpus(run_folder, store, tmp_path):
    bare = tmp_path / "deep" / "model.ckpt"
    bare.parent.mkdir()
    shutil.copy(run_folder / "checkpoints" / "final.ckpt", bare)
    with pytest.raises(UserError, match="--corpus STORE"):
        open_evaluated(bare)
    evaluated = open_evaluated(bare, store.path, device="cpu")
    assert evaluated.context == 32  # all that its model takes
    assert evaluated.on_own_corpus is evaluated.final_of is None
    torch.save({"weights": torch.zeros(3)}, bare)
    with pytest.raises(UserError, match="no checkpoint of a language model"):
        open_evaluated(bare, store.path)


def test_a_bare_checkpoint_is_evaluated_at_the_context_it_was_trained_at(
    run_folder, store, tmp_path
):
    content = torch.load(run_folder / "checkpoints" / "final.ckpt", weights_only=True)
    content["MyData"] = content.pop("DataMixer")  # as of a subclass
    content["MyData"]["belongs_to"]["context"] = 8
    torch.save(content, tmp_path / "bare.ckpt")
    assert open_evaluated(tmp_path / "bare.ckpt", store.path, device="cpu").context == 8
    assert open_evaluated(tmp_path / "bare.ckpt", store.path, 16, device="cpu").context == 16


def test_a_store_that_has_changed_is_noticed(run_folder, tmp_path):
    copy = shutil.copytree(run_folder, tmp_path / "run")
    facts = json.loads((copy / "provenance.json").read_text())
    (copy / "provenance.json").write_text(json.dumps({**facts, "fingerprint": "0" * 32}))
    with pytest.raises(UserError, match="has changed since the run"):
        open_evaluated(copy)
    assert open_evaluated(copy, Store.open(facts["corpus"]).path).on_own_corpus is False
    (copy / "recipe.yaml").unlink()
    with pytest.raises(UserError, match=r"recipe\.yaml is missing"):
        open_evaluated(copy)
    (copy / "provenance.json").write_text("{}")
    with pytest.raises(UserError, match="damaged or of an earlier version"):
        open_evaluated(copy)


def test_an_experiment_of_stages_names_its_last_one(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "proxy")
    shutil.copytree(run_folder, tmp_path / "main")
    with pytest.raises(UserError, match=r"name the folder of one of them: .*main, .*proxy"):
        open_evaluated(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"folder": "main"}))
    assert open_evaluated(tmp_path).final_of == tmp_path / "main"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--context", "64"], "takes at most 32 tokens"),
        (["--context", "-1"], "--context is -1: it must be ≥ 1"),
        (["--context", "0"], "--context is 0: it must be ≥ 1"),
        (["--sequences", "0"], "--sequences is 0: it must be ≥ 1"),
        (["--batch-size", "0"], "--batch-size is 0: it must be ≥ 1"),
        (["--resamples", "0"], "--resamples is 0: it must be ≥ 1"),
        (["--device", "abacus"], "--device abacus"),
        (["--corpus", "nowhere"], "store nowhere has no manifest.json"),
    ],
)
def test_mistakes_are_named(run_folder, capsys, options, expected):
    assert main(["evaluate", str(run_folder), *options]) == 2
    assert expected in capsys.readouterr().err


def test_what_is_not_there_is_named(run_folder, capsys, tmp_path):
    assert main(["evaluate", str(tmp_path / "none.ckpt")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "has no checkpoints/final.ckpt" in capsys.readouterr().err


def test_the_command_prints_a_table_and_writes_json(run_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    output = tmp_path / "scores.json"
    step = run_folder / "checkpoints" / "final.ckpt"
    words = ["evaluate", str(step), "--resamples", "50", "--device", "cpu", "--output", str(output)]
    assert main(words) == 0
    out = capsys.readouterr().out
    for name in ("animals", "code", "numbers", "mean", "worst", "weighted", "bits/byte"):
        assert name in out
    content = json.loads(output.read_text())
    assert content["trained_on_this_corpus"] is True
    assert set(content["domains"]) == {"animals", "code", "numbers"}
    loss = content["domains"]["code"]["loss"]
    assert loss["low"] < loss["value"] < loss["high"]
    assert main(words) == 2
    assert "add --force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
