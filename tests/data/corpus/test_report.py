"""What `prepare` shows: lines in a pipe, a table that keeps its numbers."""

import io
import json
import re

from rich.console import Console
from small_corpora import write_corpus

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


def test_a_large_document_that_ends_a_capped_domain_early_is_warned_of(tmp_path, capsys):
    source = write_corpus(tmp_path / "text", 20)
    small, large = ({"text": f"{word} " * times} for word, times in (("a", 9), ("b", 400_000)))
    lines = [small, {"text": "another"}, large, *({"text": f"late {i}"} for i in range(50))]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (source / "mixed.jsonl").write_text(text)
    options = {"source": str(source), "vocab_size": 300, "validation_fraction": 0.3}
    prepare(CorpusSettings(**options, store=str(tmp_path / "s"), megabytes=0.5), progress=False)
    shown = capsys.readouterr().out
    assert "domain 'mixed': 25 of the 500,000 bytes that corpus.megabytes allows" in shown
    assert "domain 'web'" not in shown
    prepare(CorpusSettings(**options, store=str(tmp_path / "m"), megabytes=2), progress=False)
    assert "corpus.megabytes allows" not in capsys.readouterr().out


def test_a_notebook_shows_a_store_and_takes_its_numbers(store):
    records = store.records()
    assert [each["name"] for each in records] == ["animals", "code", "numbers"]
    assert [each["train_tokens"] for each in records] == [d.train_tokens for d in store.domains]
    assert all(f"<td>{each['train_tokens']:,}</td>" in store._repr_html_() for each in records)
