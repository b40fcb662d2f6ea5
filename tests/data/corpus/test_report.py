"""What `prepare` shows: lines in a pipe, a table that keeps its numbers."""

import io
import re

from rich.console import Console

from dograph.data.corpus import report
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.report import closing_table
from dograph.data.corpus.settings import CorpusSettings


def test_every_step_has_a_line_in_a_pipe(monkeypatch, capsys, corpus_folder, tmp_path):
    monkeypatch.delenv("COLUMNS", raising=False)
    settings = CorpusSettings(
        source=str(corpus_folder),
        vocab_size=300,
        store=str(tmp_path / "store"),
        derived={"copy": {"from": "code", "how": "near_copy"}},
    )
    store = prepare(settings)
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "stage: begins"  # the folder's text is not capped, so its size is not known
    assert "derive copy: begins" in lines
    assert "tokenizer: begins" in lines
    assert any(re.fullmatch(r"tokenise: [\d.]+ MB", line) for line in lines), text
    assert str(store.path) in lines
    assert "\x1b" not in text


def test_a_silent_preparation_is_silent(corpus_folder):
    text = io.StringIO()
    bars = report.ProgressBars(Console(file=text), visible=False)
    with bars.progress, bars.step("stage", 10) as advance:
        advance(5)
        bars.note("a note")
    assert text.getvalue() == ""


def test_the_closing_table_is_whole_on_a_narrow_screen(store):
    text = io.StringIO()
    Console(file=text, width=40).print(closing_table(store))
    assert "…" not in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 40
    for entry in store.domains:
        assert text.getvalue().count(entry.name) >= 1
        assert f"{entry.train_tokens:,}" in text.getvalue()
