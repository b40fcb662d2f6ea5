"""Nothing of a corpus is left out without a line: files, rows and documents, by the reason."""

import json
import shutil

import pytest
from small_corpora import sentences, write_corpus

from dograph.data.corpus.left_out import DocumentsLeftOut, DocumentTally
from dograph.data.corpus.manifest import is_store
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.report import closing_table, left_out_lines
from dograph.data.corpus.rows import BadRow
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.source import FolderSource
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.files.checksums import read_verified


def lines(texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


@pytest.fixture
def corpus(tmp_path):
    """A folder with something of every kind that is left out."""
    folder = write_corpus(tmp_path / "corpus", 20)
    for name in ("notes/table.csv", "notes/deep/b.lisp", "notes/c.jsonl.lz4", "top.arrow"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("unread")
    for name in (".git", "notes/.cache", "notes/nothing"):
        (folder / name).mkdir()
    (folder / "_SUCCESS").touch()
    (folder / "notes" / "empty.txt").touch()
    (folder / "notes" / "far").symlink_to(tmp_path)
    (folder / "manifest.json").write_text('{\n"files": ["web.jsonl"]\n}')
    return folder


def test_every_file_that_is_left_out_is_counted_and_named(corpus):
    left_out = {entry.reason: entry for entry in FolderSource(corpus, "text").left_out}
    counted = {reason: (entry.count, entry.first) for reason, entry in left_out.items()}
    assert counted == {
        "unknown ending": (4, ("notes/c.jsonl.lz4", "notes/table.csv", "notes/deep/b.lisp")),
        "name begins with . or _": (3, (".git", "_SUCCESS", "notes/.cache")),
        "empty file": (1, ("notes/empty.txt",)),
        "empty folder": (1, ("notes/nothing",)),
        "link to a folder, within a domain": (1, ("notes/far",)),
        "one JSON value without text": (1, ("manifest.json",)),
    }
    assert str(left_out["unknown ending"]).endswith("notes/deep/b.lisp, …)")


def test_a_name_with_control_characters_is_shown_as_ascii(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b\x1b[2J\n.csv").write_text("b")
    assert FolderSource(tmp_path, "text").left_out[0].first == (r"'b\x1b[2J\n.csv'",)


def test_a_bad_row_of_such_a_file_is_shown_as_ascii_too():
    tally = DocumentTally("a")
    assert list(tally.texts([BadRow("b\x1b[2J.jsonl, line 1", "a list", ""), "text"])) == ["text"]
    assert tally.left_out().first_bad_row == r"'b\x1b[2J.jsonl, line 1: a list'"


@pytest.mark.parametrize("inside", ["code.lisp", "_part.txt", "deeper/x.bin", None])
def test_a_domain_without_a_file_to_read_names_the_endings(tmp_path, inside):
    (tmp_path / "web.txt").write_text("a")
    path = tmp_path / "lisp" / (inside or "")
    (path.parent if inside else path).mkdir(parents=True)
    if inside:
        path.write_text("(car x)")
    with pytest.raises(UserError, match=r"lisp holds no file to read, only .*\.jsonl, .*\.parquet"):
        FolderSource(tmp_path, "text")


def test_a_source_of_unknown_files_alone_names_them(tmp_path):
    (tmp_path / "web.csv").write_text("a")
    with pytest.raises(UserError, match=r"holds no domain, only unknown ending: 1 \(web\.csv\)"):
        FolderSource(tmp_path, "text")


def test_documents_are_counted_by_reason_in_manifest_table_and_lines(tmp_path, capsys):
    first, second, third = (sentences(seed, 12) for seed in (1, 2, 3))
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_text(lines([*first, *first[:3], "", " \n"]))
    bad = '{"meta": 1}\n'
    (folder / "b.jsonl").write_text(lines([*second, *first]) + bad)
    (folder / "c.jsonl").write_text(lines([*third, *first[:1], *second[:2]]))
    (folder / "d.jsonl").write_text(lines(sentences(4, 40)))
    settings = CorpusSettings(
        source=str(folder),
        store=str(tmp_path / "store"),
        vocab_size=300,
        validation_fraction=0.2,
        skip_bad_rows=True,
        megabytes={"d": 0.005},
    )
    store = prepare(settings, progress=False)
    assert [entry.left_out for entry in store.domains] == [
        DocumentsLeftOut(duplicates=3, empty=2),
        DocumentsLeftOut(
            in_other_domains={"a": 12},
            bad_rows=1,
            first_bad_row=f"{folder}/b.jsonl, line 25: no key 'text'; it has ['meta']",
        ),
        DocumentsLeftOut(in_other_domains={"a": 1, "b": 2}),
        DocumentsLeftOut(cap=5000),
    ]
    assert Store.open(store.path) == store
    columns = {
        str(column.header): [*map(str, column.cells)] for column in closing_table(store).columns
    }
    assert columns["left out"] == ["5", "13", "3", "0", "21"]
    printed = capsys.readouterr().out
    assert left_out_lines(store.domains, store.left_out) == [
        "left out of a: 3 duplicates within it; 2 empty",
        f"left out of b: 12 duplicates of documents in 'a'; 1 row without text (first: {folder}"
        "/b.jsonl, line 25: no key 'text'; it has ['meta'])",
        "left out of c: 1 duplicate of documents in 'a'; 2 duplicates of documents in 'b'",
        "left out of d: all beyond its cap of 0.005 MB (corpus.megabytes)",
    ]
    assert all(line in printed for line in left_out_lines(store.domains, store.left_out))


def test_files_are_named_at_every_start_and_kept_in_the_manifest(corpus, tmp_path, capsys):
    settings = CorpusSettings(str(corpus), vocab_size=300, store=str(tmp_path / "store"))
    store = prepare(settings, progress=False)
    assert [entry.name for entry in store.domains] == ["notes", "web"]
    line = "left out of corpus.source: empty file: 1 (notes/empty.txt); empty folder: 1"
    assert line in capsys.readouterr().out
    written = read_verified(store.path / "manifest.json")["left_out"]
    assert {entry["reason"]: entry["count"] for entry in written}["unknown ending"] == 4
    (corpus / "new.csv").touch()
    assert prepare(settings) == store
    printed = capsys.readouterr().out
    assert line in printed and "unknown ending: 5 (new.csv, notes/c" in printed


def test_a_domain_of_another_s_documents_says_so(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", 10)
    shutil.copy(corpus / "web.jsonl", corpus / "web2.jsonl")
    (corpus / "web2.jsonl").open("a").write("\n" + lines([""]))
    settings = CorpusSettings(str(corpus), store=str(tmp_path / "store"))
    message = r"'web2' holds no new text \(20 duplicates of documents in 'web'; 1 empty\)"
    with pytest.raises(UserError, match=message):
        prepare(settings, progress=False)


def test_a_corpus_with_a_manifest_of_its_own_is_no_store(tmp_path, small_store):
    corpus = write_corpus(tmp_path / "corpus", 10)
    for content in ('{"a": 1}', '{"format": 2, "files": {}}', "[1]", "no JSON", '{"format": "x"}'):
        (corpus / "manifest.json").write_text(content)
        assert not is_store(corpus)
    with pytest.raises(UserError, match=r"store .* has a manifest\.json that is not dograph's"):
        Store.open(corpus)
    assert is_store(small_store.path)


@pytest.mark.parametrize("broken", ["manifest.json", "tokenizer.json", "domains"])
def test_a_damaged_store_is_still_one(small_store, tmp_path, broken):
    """It must not be read as a corpus: its tokens are no text."""
    copy = tmp_path / "copy"
    shutil.copytree(small_store.path, copy)
    path = copy / broken
    path.rename(copy / f"{broken}.away")
    assert is_store(copy)
    with pytest.raises(UserError, match=f"damaged.*move {copy} away"):
        prepare(CorpusSettings(str(copy)), progress=False)


def test_a_folder_with_a_manifest_of_its_own_is_not_taken_for_the_store_to_make(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", 10)
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text('{"mine": 1}')
    settings = CorpusSettings(str(corpus), vocab_size=300, store=str(other))
    with pytest.raises(UserError, match=r"is not a store: set corpus\.store to another folder$"):
        prepare(settings, progress=False)
