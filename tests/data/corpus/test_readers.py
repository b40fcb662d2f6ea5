import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dograph.data.corpus.document import cut_stream
from dograph.data.corpus.readers import read_documents
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.source import FolderSource, cap_bytes, open_source
from dograph.errors import UserError

TEXTS = ["first document", "zweites Dokument: ü", "third\nwith two lines"]


def json_lines(texts=TEXTS, key="text"):
    return "".join(json.dumps({key: text}) + "\n" for text in texts).encode()


def write(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".jsonl", bytes),
        (".jsonl.gz", gzip.compress),
        (".jsonl.zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_json_lines_are_read_plain_and_compressed(tmp_path, ending, pack):
    path = write(tmp_path, "web" + ending, pack(json_lines()))
    assert list(read_documents(path, "text")) == TEXTS


def test_zstandard_files_of_several_frames_are_read_whole(tmp_path):
    frame = zstandard.ZstdCompressor().compress(json_lines())
    assert list(read_documents(write(tmp_path, "a.jsonl.zst", frame * 2), "text")) == TEXTS * 2


def test_parquet_is_read_by_its_text_column(tmp_path):
    table = pyarrow.table({"id": [1, 2, 3], "content": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "web.parquet")
    assert list(read_documents(tmp_path / "web.parquet", "content")) == TEXTS
    with pytest.raises(UserError, match=r"no column 'text'; it has \['id', 'content'\]"):
        list(read_documents(tmp_path / "web.parquet", "text"))


@pytest.mark.parametrize("ending", [".txt", ".md", ".txt.gz"])
def test_a_text_file_is_cut_into_documents_that_are_its_text(tmp_path, ending):
    text = "paragraph of a long book\n\n" * 10_000
    data = gzip.compress(text.encode()) if ending.endswith("gz") else text.encode()
    documents = list(read_documents(write(tmp_path, "book" + ending, data), "text"))
    assert "".join(documents) == text
    assert len(documents) > 1
    assert all(document.endswith("\n\n") for document in documents)


@given(st.text(alphabet="ab \n", max_size=400), st.integers(2, 50), st.integers(1, 60))
def test_cutting_loses_nothing_and_keeps_the_limit(text, limit, block):
    pieces = list(cut_stream([text], limit))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)
    blocks = [text[start : start + block] for start in range(0, len(text), block)]
    assert "".join(cut_stream(blocks, limit)) == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"text": "a"}\n{oops\n', "line 2: not JSON"),
        (b'{"body": "a"}\n', r"line 1: no key 'text'; it has \['body'\]"),
        (b"[1]\n", "line 1: a list"),
        (b'{"text": 3}\n', "'text' is a int"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path, data, message):
    path = write(tmp_path, "web.jsonl", data)
    with pytest.raises(UserError, match=message) as caught:
        list(read_documents(path, "text"))
    assert "web.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(json_lines() * 100)[:-9]),
        ("a.jsonl.zst", b"not zstandard at all"),
        ("a.parquet", b"PAR1 but no more"),
        ("a.txt", b"\xff\xfe\x00"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, data):
    with pytest.raises(UserError, match=name):
        list(read_documents(write(tmp_path, name, data), "text"))


def test_folders_and_files_are_domains_and_hidden_ones_are_not(tmp_path):
    write(tmp_path, "notes/deep/a.txt", b"a")
    write(tmp_path, "notes/.cache/b.txt", b"b")
    write(tmp_path, "web.jsonl.gz", gzip.compress(json_lines()))
    write(tmp_path, ".git/c.txt", b"c")
    write(tmp_path, "table.csv", b"c")
    source = FolderSource(tmp_path, "text")
    assert source.domains() == ("notes", "web")
    assert list(source.documents("notes")) == ["a"]
    assert list(source.documents("web")) == TEXTS


@pytest.mark.parametrize("name", ["a b.txt", "-rf.txt", "a..b.txt", "x..y/z.txt"])
def test_unsafe_domain_names_are_refused(tmp_path, name):
    write(tmp_path, name, b"a")
    with pytest.raises(UserError, match="cannot name a domain"):
        FolderSource(tmp_path, "text")


def test_two_sources_of_one_domain_are_refused(tmp_path):
    write(tmp_path, "web/a.txt", b"a")
    write(tmp_path, "web.jsonl", json_lines())
    with pytest.raises(UserError, match="second source of domain 'web'"):
        FolderSource(tmp_path, "text")


def test_a_missing_or_empty_source_is_named(tmp_path):
    with pytest.raises(UserError, match="absent: it must be 'environment' or a folder"):
        open_source(CorpusSettings(source=str(tmp_path / "absent")))
    with pytest.raises(UserError, match="holds no domain"):
        open_source(CorpusSettings(source=str(tmp_path)))


def test_a_cap_for_an_unknown_domain_names_the_nearest(tmp_path):
    write(tmp_path, "web.jsonl", json_lines())
    with pytest.raises(UserError, match="did you mean 'web'"):
        open_source(CorpusSettings(source=str(tmp_path), megabytes={"wep": 1}))
    settings = CorpusSettings(source=str(tmp_path), megabytes={"web": 1.5})
    assert cap_bytes(open_source(settings), "web", settings) == 1_500_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 256),
        ("validation_fraction", 1.0),
        ("validation_fraction", float("nan")),
        ("workers", 0),
        ("megabytes", 0),
        ("megabytes", {"web": -1}),
        ("source", ""),
    ],
)
def test_a_setting_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=field):
        CorpusSettings(**{field: value})
