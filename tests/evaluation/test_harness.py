"""lm-evaluation-harness answers as the plain network does, without a network of the other kind."""

import importlib.metadata
import json
import math
import shutil
import socket
import subprocess
import sys

import pytest
import torch

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.evaluation.downstream import load_tasks, run_tasks
from dograph.evaluation.evaluated_model import open_evaluated
from dograph.evaluation.task_results import PAPER, TaskResult, read_results, write_results
from dograph.experiments.comparison.runs import find_runs
from dograph.training.checkpoint_reader import CheckpointIdentity

pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def evaluated(run_folder):
    return open_evaluated(run_folder, device="cpu")


@pytest.fixture
def offline(monkeypatch):
    """No socket connects."""

    def refuse(self, address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: refuse(None, address))


def read(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@torch.inference_mode()
def answer(evaluated, context, continuation):
    """(log-likelihood, whether greedy) by transformers' network alone, token by token."""
    tokenizer = evaluated.store.tokenizer()
    before = tokenizer.encode(context).ids or [evaluated.store.end_of_text]
    after = tokenizer.encode(context + continuation).ids[len(tokenizer.encode(context).ids) :]
    total, greedy = 0.0, True
    for index, token in enumerate(after):
        seen = torch.tensor([(before + after[:index])[-evaluated.context :]])
        logits = evaluated.model.network(input_ids=seen).logits[0, -1].double()
        total += logits.log_softmax(0)[token].item()
        greedy = greedy and int(logits.argmax()) == token
    return total, greedy


def greedy_words(evaluated, context, count):
    """What the network itself finds likeliest."""
    tokenizer = evaluated.store.tokenizer()
    ids = tokenizer.encode(context).ids
    for _ in range(count):
        with torch.inference_mode():
            logits = evaluated.model.network(input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
    return tokenizer.decode(ids)[len(context) :]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_loglikelihoods_are_those_of_the_plain_network(evaluated, batch_size):
    from lm_eval.api.instance import Instance

    from dograph.evaluation.harness import CheckpointLM

    pairs = [
        ("the cat sleeps", " under the tree"),
        ("the cat sleeps", " hides"),
        ("one", " two three four plus"),
        ("def return import class", " self"),
        ("", "the dog jumps"),
        ("yield ( ) [ ]", " : = +"),
        ("the lion eats", greedy_words(evaluated, "the lion eats", 4)),
    ]
    model = CheckpointLM(evaluated, batch_size=batch_size)
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    answers = model.loglikelihood(requests, disable_tqdm=True)
    for pair, (value, greedy) in zip(pairs, answers, strict=True):
        expected, likeliest = answer(evaluated, *pair)
        assert value == pytest.approx(expected, abs=1e-4), pair
        assert greedy == likeliest, pair
    assert [bool(greedy) for _, greedy in answers].count(True) >= 1  # the last is greedy
    assert [bool(greedy) for _, greedy in answers].count(False) >= 1


def test_the_tokenizer_gives_the_stores_tokens(evaluated):
    from dograph.data.domains import Documents
    from dograph.evaluation.harness import CheckpointLM

    model = CheckpointLM(evaluated)
    documents = Documents(evaluated.store, "code", "validation")
    text = evaluated.store.tokenizer().decode(documents[0].tolist())
    assert model.tok_encode(text) == documents[0].tolist()
    assert model.tok_decode(documents[0].tolist()) == text
    assert evaluated.store.end_of_text not in model.tok_encode("as <|endoftext|> text")
    assert model.max_length == 32


def test_the_local_suite_needs_no_network_and_agrees_with_the_plain_network(
    evaluated, run_folder, offline, tmp_path
):
    before = set(tmp_path.parent.rglob("*.arrow"))
    results = run_tasks(evaluated, "local", tmp_path, examples=6, batch_size=4)
    assert len(results) == 6
    assert {result.checkpoint for result in results.values()} == {evaluated.identity}
    assert set(tmp_path.parent.rglob("*.arrow")) == before  # caches are gone
    for domain in ("animals", "code", "numbers"):
        cloze = results[f"local_cloze_{domain}"]
        examples = read(tmp_path, f"local_cloze_{domain}")
        answers = [answer(evaluated, e["context"], e["target"]) for e in examples]
        assert cloze.metrics["acc"] == pytest.approx(sum(greedy for _, greedy in answers) / 6)
        mean = sum(value for value, _ in answers) / 6
        assert cloze.metrics["perplexity"] == pytest.approx(math.exp(-mean), rel=1e-3)
        right = 0
        for example in read(tmp_path, f"local_continuation_{domain}"):
            values = [answer(evaluated, example["context"], c)[0] for c in example["choices"]]
            right += values.index(max(values)) == example["label"]
        continued = results[f"local_continuation_{domain}"]
        assert continued.metrics["acc"] == pytest.approx(right / 6)
        assert continued.suite_tasks == 3
        assert continued.examples == 6
        assert {"acc_norm", "acc_stderr"} <= set(continued.metrics)


@pytest.mark.slow
def test_the_command_files_the_tasks_in_the_run(run_folder, capsys, offline, tmp_path):
    """`dograph evaluate --tasks`, with what it keeps and what it asks before it replaces that."""
    words = ["evaluate", str(run_folder), "--tasks", "local", "--examples", "4", "--resamples", "9"]
    assert main([*words, "--device", "cpu"]) == 0
    assert "mean of local_cloze" in capsys.readouterr().out
    version = importlib.metadata.version("lm_eval")
    assert {task.conditions for task in read_results(run_folder).values()} == {(4, 0, version)}
    assert (run_folder / "tasks" / "local_cloze_code.yaml").is_file()
    assert main(words) == 2
    assert "has results of local: add --force" in capsys.readouterr().err
    output = tmp_path / "all.json"
    before = read_results(run_folder)
    assert main([*words, "--seed", "1", "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    assert set(content["downstream"]["means"]) == {"local_cloze", "local_continuation"}
    assert "mean" in content
    assert read_results(run_folder) == before


def test_a_folders_name_may_hold_what_globs_read(evaluated, offline, tmp_path):
    results = run_tasks(evaluated, "local", tmp_path / "x[1]*{a}", examples=1)
    assert len(results) == 6


def test_local_tasks_that_cannot_be_read_name_their_folder(
    evaluated, offline, tmp_path, monkeypatch
):
    monkeypatch.setattr("dograph.evaluation.local_tasks.glob.escape", lambda path: path + "[gone]")
    with pytest.raises(UserError, match=r"its tasks cannot be read .*--task-folder") as raised:
        run_tasks(evaluated, "local", tmp_path / "tasks", examples=1)
    assert "hub" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--resamples", "0"], "--resamples is 0: it must be ≥ 1"),
        (["--sequences", "0"], "--sequences is 0: it must be ≥ 1"),
        (["--context", "0"], "--context is 0: it must be ≥ 1"),
        (["--examples", "0"], "--examples is 0: it must be ≥ 1"),
        (["--tasks", " , "], "--tasks is empty"),
        (["--output", "/dev/null/here.json"], "cannot be written to"),
    ],
)
def test_mistakes_are_named_before_any_task_runs(
    run_folder, capsys, monkeypatch, options, expected
):
    monkeypatch.setattr("dograph.evaluation.command.run_tasks", lambda *_: pytest.fail("ran"))
    assert main(["evaluate", str(run_folder), "--tasks", "local", "--force", *options]) == 2
    assert expected in capsys.readouterr().err


def test_a_domain_without_text_is_named_before_any_task_runs(run_folder, capsys, monkeypatch):
    def refuse(evaluated):
        raise UserError("no whole sequence")

    monkeypatch.setattr("dograph.evaluation.command.open_domains", refuse)
    monkeypatch.setattr("dograph.evaluation.command.run_tasks", lambda *_: pytest.fail("ran"))
    assert main(["evaluate", str(run_folder), "--tasks", "local", "--force"]) == 2
    assert "no whole sequence" in capsys.readouterr().err


@pytest.mark.parametrize("to_file", [False, True])
def test_results_of_tasks_survive_a_failure_afterwards(run_folder, tmp_path, monkeypatch, to_file):
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("tasks*"))
    found = {"piqa": TaskResult(9, {"acc": 0.5})}

    def fail(*_):
        raise UserError("out of luck")

    monkeypatch.setattr("dograph.evaluation.command.run_tasks", lambda *_: found)
    monkeypatch.setattr("dograph.evaluation.command.evaluate", fail)
    output = tmp_path / "all.json"
    more = ["--output", str(output)] if to_file else []
    assert main(["evaluate", str(copy), "--tasks", "piqa", *more]) == 2
    if to_file:
        assert json.loads(output.read_text())["downstream"]["tasks"]["piqa"]["acc"] == 0.5
    assert (read_results(copy) == found) is not to_file


def test_results_of_another_context_are_not_the_runs(run_folder, tmp_path, capsys, monkeypatch):
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("tasks*"))
    monkeypatch.setattr(
        "dograph.evaluation.command.run_tasks", lambda *_: {"piqa": TaskResult(9, {"acc": 0.5})}
    )
    assert main(["evaluate", str(copy), "--tasks", "piqa", "--context", "16"]) == 0
    assert "name a file with --output" in capsys.readouterr().out
    assert read_results(copy) == {}


def test_a_suite_does_not_replace_one_of_its_tasks_unasked(
    run_folder, tmp_path, capsys, monkeypatch
):
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("tasks*"))
    write_results(copy, {"piqa": TaskResult(9, {"acc": 0.5})}, {})
    monkeypatch.setattr("dograph.evaluation.command.run_tasks", lambda *_: pytest.fail("ran"))
    assert main(["evaluate", str(copy), "--tasks", "paper"]) == 2
    assert "has results of piqa: add --force" in capsys.readouterr().err


def test_results_of_an_earlier_checkpoint_are_replaced_unasked(
    run_folder, evaluated, tmp_path, capsys, monkeypatch
):
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("tasks*"))
    earlier = CheckpointIdentity(10, "other")
    old = TaskResult(9, {"acc": 0.5}, checkpoint=earlier)
    write_results(copy, {"piqa": old, "sciq": old}, {})
    (before,) = find_runs([copy])
    assert before.accuracies == {}
    now = TaskResult(9, {"acc": 0.25}, checkpoint=evaluated.identity)
    assert evaluated.identity.step == 20
    monkeypatch.setattr("dograph.evaluation.command.run_tasks", lambda *_: {"piqa": now})
    words = ["evaluate", str(copy), "--tasks", "piqa", "--resamples", "9"]
    assert main(words) == 0
    assert "of an earlier checkpoint: results of piqa, sciq" in capsys.readouterr().out
    assert read_results(copy) == {"piqa": now}
    (after,) = find_runs([copy])
    assert (before.tasks, before.stale_tasks) == ({}, ["piqa", "sciq"])
    assert (after.tasks, after.stale_tasks) == ({"piqa": now}, [])
    assert main(words) == 2  # of this checkpoint


@pytest.mark.slow
def test_the_harness_own_command_line_finds_the_model_and_the_tasks(run_folder, tmp_path, store):
    """The model is registered where lm_eval's own command looks for it."""
    from dograph.evaluation.local_tasks import write_local_tasks

    write_local_tasks(store, tmp_path / "tasks", 32, 3)
    words = ["--model", "dograph", "--model_args", f"checkpoint={run_folder}", "--device", "cpu"]
    words += ["--tasks", "local_cloze_code", "--include_path", str(tmp_path / "tasks")]
    words += ["--output_path", str(tmp_path / "out")]
    out = subprocess.run(
        [sys.executable, "-m", "dograph.evaluation.harness", *words],
        env={"PATH": "", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert out.returncode == 0, out.stderr
    (file,) = (tmp_path / "out").rglob("results_*.json")
    assert "acc,none" in json.loads(file.read_text())["results"]["local_cloze_code"]


@pytest.fixture(scope="module")
def all_tasks():
    """The harness's own tasks, whose thousands of files it reads for seconds."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval.tasks.TaskManager", lambda: manager)
        yield manager.all_tasks


def test_the_papers_tasks_are_the_harness_own(all_tasks):
    assert set(PAPER) <= set(all_tasks)


def test_without_a_hub_the_papers_tasks_are_refused_clearly(
    all_tasks, evaluated, monkeypatch, tmp_path
):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"task piqa: its data cannot be had .* --tasks local"):
        run_tasks(evaluated, "paper")


def test_an_unknown_task_is_named_with_the_nearest(all_tasks):
    with pytest.raises(UserError, match=r"no task 'arc_eazy'; did you mean 'arc_easy'"):
        load_tasks(["arc_eazy"])


def test_without_the_extra_the_remedy_is_named(run_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # what an import finds when it is missing
    assert main(["evaluate", str(run_folder), "--tasks", "local", "--force"]) == 2
    assert "pip install 'dograph[eval]'" in capsys.readouterr().err
