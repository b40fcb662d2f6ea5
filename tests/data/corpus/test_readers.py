import bz2
import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dograph.data.corpus.document import cut_stream
from dograph.data.corpus.readers import read_documents
from dograph.data.corpus.rows import BadRow
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
        (".jsonl.xz", lzma.compress),
        (".ndjson.bz2", bz2.compress),
        (".JSONL", bytes),
        (".Jsonl.GZ", gzip.compress),
        (".json", bytes),
        (".JSON.gz", gzip.compress),
    ],
)
def test_json_lines_are_read_plain_and_compressed(tmp_path, ending, pack):
    path = write(tmp_path, "web" + ending, pack(json_lines()))
    assert list(read_documents(path, "text")) == TEXTS


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_file_may_be_one_array_or_one_object(tmp_path, indent):
    array = json.dumps([{"text": text} for text in TEXTS], indent=indent).encode()
    assert list(read_documents(write(tmp_path, "a.json", array), "text")) == TEXTS
    one = json.dumps({"id": 1, "text": TEXTS[2]}, indent=indent).encode()
    assert list(read_documents(write(tmp_path, "b.json", one), "text")) == TEXTS[2:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"text": "a"}, 3]', "a.json, element 2: a int"),
        (b'[{"body": "a"}]', r"element 1: no key 'text'; it has \['body'\]"),
        (b'{"text": "a"}\n{"body": "b"}', "line 2: no key 'text'"),
        (b'{\n"text": "a"}\n{\n"text": "b"}', "neither a JSON object per line, nor one JSON value"),
        (b'[{"text": "a"}]\n[{"text": "b"}]', "neither a JSON object per line, nor one JSON value"),
        (b'{"text": "a"', "neither a JSON object per line, nor one JSON value"),
    ],
)
def test_a_json_file_of_another_form_is_refused(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        list(read_documents(write(tmp_path, "a.json", data), "text"))


def test_a_json_file_that_only_describes_data_is_left_out(tmp_path):
    for data in (b'{"license": "MIT"}', b'["a.jsonl", "b.jsonl"]', b"3", b'{\n"version": 1\n}'):
        (only,) = read_documents(write(tmp_path, "info.json", data), "text")
        assert isinstance(only, BadRow) and only.is_file


MARK = "\ufeff"
WINDOWS, MAC = "one\r\n\r\ntwo\r\n", "one\r\rtwo\r"


@pytest.mark.parametrize("text", [MARK + "one\n\ntwo\n", WINDOWS, MAC, MARK + WINDOWS])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".parquet"])
def test_every_format_drops_a_byte_order_mark_and_has_one_line_end(tmp_path, ending, text):
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), path)
    else:
        path.write_bytes(text.encode() if ending == ".txt" else json_lines([text]))
    assert list(read_documents(path, "text")) == ["one\n\ntwo\n"]


def test_json_lines_of_windows_with_a_byte_order_mark(tmp_path):
    data = MARK.encode() + json_lines().replace(b"\n", b"\r\n")
    for name in ("a.jsonl", "a.json"):
        assert list(read_documents(write(tmp_path, name, data), "text")) == TEXTS


def test_a_line_end_that_two_blocks_share_is_one(tmp_path):
    text = "x" * (2**16 - 1) + "\r\ny"
    documents = read_documents(write(tmp_path, "a.txt", text.encode()), "text")
    assert "".join(documents) == text.replace("\r\n", "\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_is_refused(tmp_path, encoding):
    with pytest.raises(UserError, match=r"a\.txt: .*convert the file to UTF-8"):
        list(read_documents(write(tmp_path, "a.txt", "some text".encode(encoding)), "text"))


def test_zstandard_files_of_several_frames_are_read_whole(tmp_path):
    frame = zstandard.ZstdCompressor().compress(json_lines())
    assert list(read_documents(write(tmp_path, "a.jsonl.zst", frame * 2), "text")) == TEXTS * 2


def test_parquet_is_read_by_its_text_column(tmp_path):
    table = pyarrow.table({"id": [1, 2, 3], "content": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "web.parquet")
    assert list(read_documents(tmp_path / "web.parquet", "content")) == TEXTS
    with pytest.raises(UserError, match=r"no column 'text'; it has \['id', 'content'\]"):
        list(read_documents(tmp_path / "web.parquet", "text"))


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.binary()])
def test_a_parquet_column_may_hold_text_or_its_utf_8_bytes(tmp_path, kind):
    column = pyarrow.array(TEXTS).cast(kind)
    for values in (column, column.dictionary_encode()):
        pyarrow.parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet")
        assert list(read_documents(tmp_path / "a.parquet", "text")) == TEXTS


def test_a_dotted_key_is_text_within_an_object(tmp_path):
    rows = [{"id": 1, "content": {"text": text, "raw": "x"}} for text in TEXTS]
    rows += [{"content": None}, {"content": {"text": None}}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    paths = [write(tmp_path, "a.jsonl", lines), tmp_path / "a.parquet"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[1])
    for path in paths:
        assert list(read_documents(path, "content.text")) == [*TEXTS, "", ""]
        with pytest.raises(UserError, match=r"no (key|column) 'text'; .*'content.text'"):
            list(read_documents(path, "text"))
        with pytest.raises(UserError, match=r"set corpus.text_key to one of .*'content.text'"):
            list(read_documents(path, "content"))
    write(tmp_path, "a.jsonl", b'{"content.text": "as it is written"}')
    assert list(read_documents(paths[0], "content.text")) == ["as it is written"]


BAD_LINES = {
    b'{"meta": []}': "no key 'text'",
    b"{}": "no key 'text'",
    b'{"text": 3}': "'text' is a int",
    b"[1]": "a list",
    b"{oops": "not JSON",
    b'{"text": "\xff"}': "not UTF-8",
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_row_among_good_ones_is_named_or_left_out(tmp_path, bad):
    path = write(tmp_path, "web.jsonl", json_lines() + bad + b"\n" + json_lines())
    message = f"web.jsonl, line 4: {BAD_LINES[bad]}.*fix this row, or set corpus.skip_bad_rows=true"
    with pytest.raises(UserError, match=message):
        list(read_documents(path, "text"))
    documents = list(read_documents(path, "text", skip_bad_rows=True))
    (left_out,) = [row for row in documents if isinstance(row, BadRow)]
    assert "line 4" in left_out.where
    assert [row for row in documents if isinstance(row, str)] == TEXTS * 2


def test_a_bad_row_of_a_parquet_file_is_named_or_left_out(tmp_path):
    values = pyarrow.array([b"a", b"\xff", None, b"b"])
    for column in (values, pyarrow.Array.from_buffers(pyarrow.string(), 4, values.buffers())):
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=r"a\.parquet, row 2: not UTF-8"):
            list(read_documents(tmp_path / "a.parquet", "text"))
        documents = list(read_documents(tmp_path / "a.parquet", "text", skip_bad_rows=True))
        assert [row for row in documents if isinstance(row, str)] == ["a", "", "b"]


@pytest.mark.parametrize("ending", [".txt", ".md", ".txt.gz", ".TXT.Xz"])
def test_a_text_file_is_cut_into_documents_that_are_its_text(tmp_path, ending):
    text = "paragraph of a long book\n\n" * 10_000
    packs = {".gz": gzip.compress, ".xz": lzma.compress}
    data = packs.get(ending[-3:].lower(), bytes)(text.encode())
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
        ("a.jsonl.xz", lzma.compress(json_lines() * 100)[:-9]),
        ("a.jsonl.bz2", bz2.compress(json_lines() * 100)[:-9]),
        ("a.txt.bz2", b"not bzip2 at all"),
        ("a.json.xz", b"not xz at all"),
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
    write(tmp_path, "UP.JSONL", json_lines())
    source = FolderSource(tmp_path, "text")
    assert source.domains() == ("UP", "notes", "web")
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


@pytest.mark.parametrize("names", [["text", "text"], ["meta.text", "meta"], ["meta", "meta.text"]])
def test_a_parquet_file_with_two_columns_of_the_name_is_refused(tmp_path, names):
    columns = [
        pyarrow.array([{"text": "inner"}] if name == "meta" else ["outer"]) for name in names
    ]
    path = tmp_path / "web.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), path)
    with pytest.raises(UserError, match="has several columns"):
        list(read_documents(path, "text" if "text" in names else "meta.text"))
