"""The front door: help, exit codes, errors without a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from dograph.cli.main import main
from dograph.data.corpus.prepare import prepare

ROOT = Path(__file__).parent.parent.parent
RECIPE = str(ROOT / "recipes" / "dograph_gpt2.yaml")


def failing(capsys, *arguments):
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize("command", [[], ["run"], ["mixers"], ["evaluate"]])
def test_help_needs_no_heavy_import(command):
    code = (
        "import sys; from dograph.cli.main import main\n"
        f"try: main({[*command, '--help']})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "usage:" in out.stdout


def test_a_missing_recipe_needs_no_heavy_import():
    code = (
        "import sys; from dograph.cli.main import main\n"
        "assert main(['run', 'nowhere.yaml']) == 2\n"
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "nowhere.yaml: no such file" in out.stderr


def test_a_run_prepares_its_corpus_once(small_recipe, monkeypatch):
    prepared = []

    def counted(settings, **options):
        prepared.append(settings)
        return prepare(settings, **options)

    monkeypatch.setattr("dograph.experiments.run.prepare", counted)
    monkeypatch.setattr("dograph.data.data_mixer.prepare", counted)
    assert main(["run", str(small_recipe("once", steps=1))]) == 0
    assert len(prepared) == 1


def test_a_misspelt_key_fails_with_a_suggestion(capsys):
    text = failing(capsys, "run", RECIPE, "mixer.init_args.clutsers=4")
    assert "mixer.init_args.clutsers" in text
    assert "did you mean 'clusters'?" in text


def test_check_prints_the_resolved_recipe(capsys):
    assert main(["run", RECIPE, "--check", "trainer.max_steps=7"]) == 0
    assert "max_steps: 7" in capsys.readouterr().out


def test_clusters_above_the_window_are_refused_before_anything_is_prepared(capsys, tmp_path):
    store = tmp_path / "store"
    text = failing(capsys, "run", RECIPE, "mixer.init_args.clusters=33", f"corpus.store={store}")
    assert "clusters is 33" in text
    assert "window" in text
    assert not store.exists()


def test_a_missing_corpus_is_named(capsys, tmp_path):
    text = failing(capsys, "run", RECIPE, f"corpus.source={tmp_path / 'nowhere'}")
    assert "nowhere" in text


def test_a_domain_without_documents_is_named(capsys, tmp_path):
    (tmp_path / "good.jsonl").write_text('{"text": "some words"}\n{"text": "other words"}\n')
    (tmp_path / "void.jsonl").write_text("")
    text = failing(capsys, "prepare", RECIPE, f"corpus.source={tmp_path}")
    assert "void" in text


def test_a_domain_shorter_than_the_context_is_named(capsys, store, corpus_settings, tmp_path):
    overrides = [
        f"corpus.source={corpus_settings.source}",
        f"corpus.store={corpus_settings.store}",
        "corpus.vocab_size=300",
        "corpus.validation_fraction=0.2",
        "data.context=100000",
        f"runs={tmp_path}",
    ]
    text = failing(capsys, "run", RECIPE, *overrides)
    assert "data.context" in text
    assert "animals" in text


def test_a_tokenizer_unlike_the_stores_is_refused(capsys, store, corpus_settings, tmp_path):
    from tokenizers import Tokenizer, models

    other = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"a": 0, "<|endoftext|>": 1}, [])).save(str(other))
    overrides = [
        f"corpus.source={corpus_settings.source}",
        f"corpus.store={corpus_settings.store}",
        f"corpus.tokenizer={other}",
        "corpus.validation_fraction=0.2",
    ]
    text = failing(capsys, "run", RECIPE, *overrides)
    assert str(corpus_settings.store) in text


def test_a_vocabulary_below_the_stores_is_refused(capsys, store, corpus_settings, tmp_path):
    overrides = [
        f"corpus.source={corpus_settings.source}",
        f"corpus.store={corpus_settings.store}",
        "corpus.vocab_size=300",
        "corpus.validation_fraction=0.2",
        "model.config.vocab_size=100",
        f"runs={tmp_path}",
    ]
    text = failing(capsys, "run", RECIPE, *overrides)
    assert "model.config.vocab_size is 100" in text


def test_more_workers_than_lookahead_are_refused(capsys):
    assert "lookahead" in failing(capsys, "run", RECIPE, "data.workers=9")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("compose.trainer=gpu", "trainer:"),
        ("model.config.n_head=3", "n_head"),
        ("model.learning_rate=0", "learning_rate is 0"),
        ("data.lookahead=-1", "lookahead is -1"),
        ("data.context=0", "data.context is 0"),
        ("trainer.max_steps=0", "trainer.max_steps"),
        ("trainer.precision=17", "precision"),
    ],
)
def test_what_libraries_refuse_is_a_clear_error_too(capsys, override, expected):
    assert expected in failing(capsys, "run", RECIPE, override)


def test_resuming_what_is_not_there_is_refused(capsys, tmp_path):
    assert "no checkpoint" in failing(capsys, "run", RECIPE, "--resume", str(tmp_path))


def test_the_lightning_command_says_what_it_does_not_do(tmp_path):
    code = (
        "import sys; sys.argv = ['lightning', 'open']; from dograph.cli.main import lightning_main"
    )
    out = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(lightning_main())"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 2
    assert "lightning run RECIPE" in out.stderr
