"""Untrusted corpus files: reading ends, in documents or in an error that names the file."""

import bz2
import gzip
import json
import lzma
import os
import socket
import time
import tracemalloc
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from dograph.data.corpus.decompression import ALWAYS_ALLOWED, LARGEST_RATIO
from dograph.data.corpus.readers import read_documents
from dograph.data.corpus.source import FolderSource
from dograph.data.corpus.staging import Staging
from dograph.errors import UserError

MUTATIONS = 1_000
LONGEST = 10.0
PACKS = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}
TEXTS = [f"document {n} with some words, äöü and 漢字 " * (n % 7 + 1) for n in range(80)]
HOSTILE_LINES = [
    b'{"text": ' * 100_000,
    b"[" * 100_000,
    b'{"text": "a", "deep": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"text": "\\ud800 half a pair"}',
    b'{"text": "\\u0000\\u0000"}',
    b'{"text": "\x00"}',
    b'{"text": "\xff\xfe"}',
    b'{"text": "\xed\xa0\x80"}',
    b'{"text": ' + b"9" * 5_000 + b"}",
    b'{"text": "a", "number": ' + b"9" * 5_000 + b"}",
    b'{"text": 1e999999}',
    b'{"text": NaN}',
    b'{"text": {"text": "a"}}',
    b'{"\\u001b[31m": 1}',
    b"\x1b]0;owned\x07",
    b"\xef\xbb\xbf" * 3 + b'{"text": "a"}',
    "ﬀ".encode("utf-16"),
    json.dumps({f"key {n}" * 50: n for n in range(2_000)}).encode(),
    b'{"text": "a"}\r{"text": "b"}',
    b"null",
    b'""',
]


def whole_files(folder):
    """{name: bytes} of one sound file of each kind."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    text = "\n\n".join(TEXTS).encode()
    array = json.dumps([{"text": text} for text in TEXTS], indent=1).encode()
    files = {"a.jsonl": lines, "a.json": array, "a.txt": text, "a.md": text}
    for name, data in list(files.items()):
        for ending, pack in PACKS.items():
            files[f"{name}.{ending}"] = pack(data)
    for compression in ("snappy", "zstd", "none"):
        path = folder / "whole.parquet"
        table = pyarrow.table({"id": list(range(len(TEXTS))), "text": TEXTS})
        pyarrow.parquet.write_table(table, path, compression=compression, row_group_size=30)
        files[f"{compression}.parquet"] = path.read_bytes()
        path.unlink()
    return files


def mutated(data, chance):
    """The bytes after one accident or attack."""
    data = bytearray(data)
    kind = chance.choice(["bits", "cut", "hole", "doubled", "garbage", "line", "number"])
    place = chance.randrange(len(data))
    if kind == "bits":
        for _ in range(chance.choice([1, 1, 3, 20])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[place:]
    elif kind == "hole":
        del data[place : place + chance.randrange(1, 200)]
    elif kind == "doubled":
        data[place:place] = data[place : place + chance.randrange(1, 2_000)]
    elif kind == "garbage":
        data[place:place] = chance.randbytes(chance.randrange(1, 64))
    elif kind == "line":
        data[place:place] = b"\n" + chance.choice(HOSTILE_LINES) + b"\n"
    else:
        data[place : place + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
    return bytes(data)


def read(path):
    """How reading ended; anything but documents or a UserError that names the file is raised."""
    begin = time.monotonic()
    try:
        documents = list(read_documents(path, "text"))
        assert all(
            isinstance(document, str) or (document.is_file and path.suffix != ".jsonl")
            for document in documents
        )
        ended = "documents"
    except UserError as error:
        assert path.name in str(error) and len(str(error)) < 3_000, str(error)[:500]
        ended = "refused"
    assert time.monotonic() - begin < LONGEST
    return ended


def test_mutated_files_end_in_documents_or_a_named_error(tmp_path, chance):
    files, ends = whole_files(tmp_path), Counter()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert read(tmp_path / name) == "documents"
    for _ in range(MUTATIONS):
        name = chance.choice(sorted(files))
        data = mutated(files[name], chance)
        (tmp_path / name).write_bytes(data)
        ends[name.partition(".")[2], read(tmp_path / name)] += 1
    print(f"{MUTATIONS} mutated files: {dict(sorted(ends.items()))}")
    assert sum(count for (_, ended), count in ends.items() if ended == "refused") > MUTATIONS // 5


@pytest.mark.parametrize("number", range(len(HOSTILE_LINES)))
def test_hostile_lines_end_too(tmp_path, number):
    good = json.dumps({"text": "good"}).encode()
    files = [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.json", bytes), ("a.txt", bytes)]
    for name, pack in files:
        (tmp_path / name).write_bytes(pack(b"\n".join([good, HOSTILE_LINES[number], good])))
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[" * 100_000, "line 1: not JSON"),
        (b'{"text": "a", "n": ' + b"9" * 5_000 + b"}", "line 1: not JSON"),
        (b'{"text": "\xff"}', "line 1: not UTF-8"),
        (b'{"text": "\xed\xa0\x80"}', "line 1: not UTF-8"),
        (json.dumps({f"{n:04d}" * 99: n for n in range(2_000)}).encode(), "and 1980 more"),
    ],
)
def test_what_is_wrong_with_a_line_is_told(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(line)
    with pytest.raises(UserError, match=message):
        list(read_documents(tmp_path / "a.jsonl", "text"))


def test_half_pairs_and_nul_characters_are_staged(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\\ud800 half"}\n{"text": "a\\u0000b"}\n')
    staging = Staging(tmp_path / "work", 0.0)
    documents = read_documents(tmp_path / "a.jsonl", "text")
    staged = staging.domain("a", lambda: documents, None, "a.jsonl", lambda _: None)
    staging.close()
    assert staged.train.documents == 2


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        *((ending, kind) for ending in ("jsonl", "txt") for kind in ("gz", "zst")),
        *(("json", "gz"), ("jsonl", "xz"), ("txt", "bz2")),
    ],
)
def test_a_bomb_is_refused_and_memory_stays_flat(tmp_path, kind, ending):
    path = tmp_path / f"bomb.{ending}.{kind}"
    line = b" " * 1023 + b"\n"
    path.write_bytes(PACKS[kind](line * 2**16) * 16)  # a gigabyte
    assert LARGEST_RATIO * path.stat().st_size < 2**30
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"bomb\.{ending}\.{kind}: .* over {LARGEST_RATIO} times"):
        for _ in read_documents(path, "text"):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


def test_a_small_file_of_one_repeated_line_is_none(tmp_path):
    path = tmp_path / "log.txt.gz"
    path.write_bytes(gzip.compress(b"the same line\n" * 2**21))
    assert path.stat().st_size * LARGEST_RATIO < ALWAYS_ALLOWED
    assert sum(map(len, read_documents(path, "text"))) == 14 * 2**21


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_parquet_bomb_is_refused(tmp_path, dictionary):
    path = tmp_path / "bomb.parquet"
    text = "x" * 2**16
    values = pyarrow.array([text] * 4_096)
    values = values.dictionary_encode() if dictionary else values
    options = {"compression": "zstd", "use_dictionary": dictionary}
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), path, **options)
    assert LARGEST_RATIO * path.stat().st_size < 2**28
    with pytest.raises(UserError, match=r"bomb\.parquet: .* over 300 times"):
        for _ in read_documents(path, "text"):
            pass


def test_a_window_that_asks_for_too_much_memory_is_refused(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "wide.txt.zst"
    path.write_bytes(packer.compress(b"some text\n" * 1_000) + packer.flush())
    with pytest.raises(UserError, match=r"wide\.txt\.zst: its zstandard window is above 128 MiB"):
        list(read_documents(path, "text"))


def pipe(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path)


def nowhere(path):
    path.symlink_to(path.with_name("absent"))


def device(path):
    path.symlink_to("/dev/zero")


def listening(path):
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(path))


@pytest.mark.parametrize("make", [pipe, loop, nowhere, device, listening])
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, make, inside):
    folder = tmp_path / "corpus" / ("web" if inside else "")
    folder.mkdir(parents=True)
    (folder / "good.txt").write_text("good")
    monkeypatch.chdir(folder)  # a socket's name is short
    make(type(folder)("strange.txt") if make is listening else folder / "strange.txt")
    with pytest.raises(UserError, match=r"strange\.txt is (not a regular file|a link to no file)"):
        FolderSource(tmp_path / "corpus", "text")
    with pytest.raises(UserError, match=r"strange\.txt(:| is) "):
        list(read_documents(folder / "strange.txt", "text"))


def test_links_to_files_are_read_wherever_they_lead(tmp_path):
    (tmp_path / "elsewhere.txt").write_text("far")
    (tmp_path / "corpus" / "web").mkdir(parents=True)
    (tmp_path / "corpus" / "web" / "near.txt").symlink_to(tmp_path / "elsewhere.txt")
    (tmp_path / "corpus" / "web" / "around").symlink_to(tmp_path / "corpus")
    source = FolderSource(tmp_path / "corpus", "text")
    assert list(source.documents("web")) == ["far"]
