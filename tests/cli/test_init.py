"""A study to start from: its files run as they are, and nothing is overwritten."""

import sys

from dograph.cli.main import main

SMALL = (
    *("data.context=16", "data.batch_size=8", "data.validation_sequences=4"),
    *("model.config={n_layer: 1, n_embd: 16, n_head: 2}", "model.warmup=2"),
    *("corpus.vocab_size=300", "corpus.validation_fraction=0.2"),
    *("trainer.max_steps=40", "trainer.val_check_interval=40", "report.figures_every=0"),
)


def test_the_files_run_as_they_are(tmp_path, monkeypatch, store, corpus_settings, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my_study"]) == 0
    next_command = capsys.readouterr().out.splitlines()[-1]
    monkeypatch.chdir(tmp_path / "my_study")
    monkeypatch.delitem(sys.modules, "my_mixers", raising=False)  # of another test
    words = next_command.partition("&& lightning ")[2].split()
    corpus = [f"corpus.source={corpus_settings.source}", f"corpus.store={corpus_settings.store}"]
    assert main([*words, *SMALL, *corpus]) == 0
    assert "LossSeeker after 40 steps" in capsys.readouterr().out
    assert (tmp_path / "my_study" / "runs" / "my_recipe" / "seed_0" / "summary.json").is_file()


def test_nothing_is_overwritten(tmp_path, capsys):
    mine = tmp_path / "my_recipe.yaml"
    mine.write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "exists, nothing was written" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [mine.name]
    assert mine.read_text() == "mine"
