"""Every remedy that a message of a corpus names is followed, and then it works."""

import contextlib
import dataclasses
import functools
import gzip
import json
import re
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from small_corpora import sentences, write_corpus

from dograph.data.corpus import decompression
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.source import cap_bytes, open_source
from dograph.data.corpus.staging import Staging
from dograph.errors import UserError

TEXTS = sentences(5, 8)


def rows(texts, key="text"):
    return "".join(json.dumps({key: text}) + "\n" for text in texts)


def write(name, data):
    """A step that writes a file of the corpus."""

    def step(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return step


def link(name, target):
    return lambda folder: (folder / name).symlink_to(target)


def rename(name, new):
    return lambda folder: (folder / name).rename(folder / new)


def setting(**changes):
    """A step that changes the settings instead of the corpus."""
    return changes


def move_out(name):
    return lambda folder: (folder / name).rename(folder.parent / "moved")


def parquet(table):
    def step(folder):
        pyarrow.parquet.write_table(table, folder / "new.parquet")

    return step


def wide_window(folder):
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress("\n".join(TEXTS).encode()) + compressor.flush()
    (folder / "new.txt.zst").write_bytes(data)


GOOD = rows(TEXTS)
NESTED = "".join(json.dumps({"content": {"text": text}, "id": 1}) + "\n" for text in TEXTS)
NO_VALIDATION = {"text_key": "body", "validation_fraction": 0.0}  # it is one document
REPEATED = "the same line\n" * 10_000
FAULTS = [
    # (step that makes the fault, message, {remedy as the message words it: step that follows it})
    (
        write("new.jsonl", rows(TEXTS, "body")),
        "no key 'text'",
        {"set corpus.text_key to one of ['body']": setting(text_key="body")},
    ),
    (
        write("new/0.json", json.dumps({"body": TEXTS})),
        "'new' holds no new text (1 row without text (first: ",
        {
            "add other text to it": write("new/a.jsonl", GOOD),
            "move it out of the corpus": move_out("new"),
        },
    ),
    (
        write("new/0.json", json.dumps({"body": TEXTS[0] * 2_000}, indent=1)),
        "one JSON value: no key 'text'; it has ['body']",
        {"set corpus.text_key to the key that holds it": setting(**NO_VALIDATION)},
    ),
    (
        write("new.jsonl", GOOD + '{"meta": 1}\n' + rows(["good"])),
        "line 9: no key 'text'",
        {
            "fix this row": write("new.jsonl", GOOD),
            "set corpus.skip_bad_rows=true": setting(skip_bad_rows=True),
        },
    ),
    (
        write("new.jsonl", GOOD + "{oops\n"),
        "line 9: not JSON",
        {
            "fix this row": write("new.jsonl", GOOD),
            "set corpus.skip_bad_rows=true": setting(skip_bad_rows=True),
        },
    ),
    (
        write("new.jsonl", '{"text": 1}\n' + GOOD),
        "line 1: 'text' is a int",
        {"set corpus.skip_bad_rows=true": setting(skip_bad_rows=True)},
    ),
    (
        write("new.jsonl", NESTED),
        "it has ['content', 'id']",
        {"set corpus.text_key to one of ['content.text']": setting(text_key="content.text")},
    ),
    (
        write("new.jsonl", "[1]\n"),
        "a list",
        {"make each row a JSON object": write("new.jsonl", GOOD)},
    ),
    (
        write("new.json", '{\n"text": "a"}\n{\n"text": "b"}'),
        "neither a JSON object per line, nor one JSON value",
        {"write one JSON object per line": write("new.json", GOOD)},
    ),
    (
        parquet(pyarrow.table({"id": range(8), "tags": [["a"]] * 8, "body": TEXTS})),
        "no column 'text'; it has ['id', 'tags', 'body']",
        {"set corpus.text_key to one of ['body']": setting(text_key="body")},
    ),
    (
        parquet(pyarrow.table({"text": [b"\xff", *(text.encode() for text in TEXTS)]})),
        "row 1: not UTF-8",
        {"set corpus.skip_bad_rows=true": setting(skip_bad_rows=True)},
    ),
    (
        write("web/new.txt", "ü".encode("latin-1") * 9),
        "not UTF-8",
        {"convert the file to UTF-8": write("web/new.txt", "ü" * 9)},
    ),
    (
        write("web/new.txt", "some text".encode("utf-16-le")),
        "holds NUL characters",
        {
            "convert the file to UTF-8": write("web/new.txt", "some text"),
            "begin its name with '_'": rename("web/new.txt", "web/_new.txt"),
        },
    ),
    (
        wide_window,
        "zstandard window is above",
        {
            "compress it without --long": write(
                "new.txt.zst", zstandard.compress("\n\n".join(sentences(7, 400)).encode())
            )
        },
    ),
    (
        write("web/new.txt.gz", gzip.compress(REPEATED.encode())),
        "over 300 times as many",
        {
            "leave it out": move_out("web/new.txt.gz"),
            "decompress it yourself": lambda folder: (
                write("web/new.txt", REPEATED)(folder),
                move_out("web/new.txt.gz")(folder),
            ),
        },
    ),
    (
        write("new.jsonl", rows(["", " "])),
        "'new' holds no new text (2 empty)",
        {
            "add other text to it": write("new.jsonl", GOOD),
            "move it out of the corpus": move_out("new.jsonl"),
        },
    ),
    (
        write("new.jsonl", rows(["alone"])),
        "'new' holds a single document",
        {
            "add a second": write("new.jsonl", rows(["alone", "or not"])),
            "set corpus.validation_fraction=0": setting(validation_fraction=0.0),
        },
    ),
    (
        write("new/code.lisp", "(car x)"),
        "new holds no file to read",
        {
            "put text in it": write("new/a.txt", "a\n\nb" * 20_000),
            "begin its name with '_'": rename("new", "_new"),
        },
    ),
    (
        write("web.jsonl", GOOD),
        "a second source of domain 'web'",
        {"rename one of the two": rename("web.jsonl", "net.jsonl")},
    ),
    (
        write("n e w.jsonl", GOOD),
        "cannot name a domain",
        {"use letters, digits, '_', '-' and single dots": rename("n e w.jsonl", "n_e-w.1.jsonl")},
    ),
    (
        link("web/new.txt", "absent"),
        "a link to no file",
        {
            "move it out of the corpus": move_out("web/new.txt"),
            "put the file there": write("web/absent", "some text"),
        },
    ),
    (
        lambda folder: {"megabytes": {"wep": 1.0}},
        "corpus.megabytes names 'wep'",
        {"did you mean 'web'?": setting(megabytes={"web": 1.0})},
    ),
    (
        lambda folder: {"derived": {"web": {"from": "notes", "how": "base64"}}},
        "has a domain of that name",
        {"choose another": setting(derived={"noise": {"from": "web", "how": "base64"}})},
    ),
]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A sound corpus of one domain, `web`."""
    monkeypatch.setattr(decompression, "ALWAYS_ALLOWED", 2**16)  # a bomb may be small
    folder = tmp_path / "corpus"
    write("web/a.txt", "\n\n".join(sentences(6, 800)))(folder)
    return folder


def stage(settings, folder):
    """Read the corpus as `prepare` does, up to its tokens."""
    source = open_source(settings)
    with contextlib.closing(Staging(folder, settings.validation_fraction)) as staging:
        return [
            staging.domain(
                name,
                functools.partial(source.documents, name),
                cap_bytes(source, name, settings),
                source.where(name),
                lambda _: None,
            )
            for name in source.domains()
        ]


CASES = [
    pytest.param(make, message, remedy, step, id=f"{message}: {remedy}")
    for make, message, remedies in FAULTS
    for remedy, step in remedies.items()
]


@pytest.mark.parametrize(("make", "message", "remedy", "step"), CASES)
def test_the_remedy_is_named_and_helps(corpus, tmp_path, make, message, remedy, step):
    settings = CorpusSettings(source=str(corpus), validation_fraction=0.1)
    made = make(corpus)
    faulty = dataclasses.replace(settings, **made) if isinstance(made, dict) else settings
    with pytest.raises(UserError) as caught:
        stage(faulty, tmp_path / "work")
    assert message in str(caught.value)
    assert remedy in str(caught.value)
    if isinstance(step, dict):
        settings = dataclasses.replace(settings, **step)
    else:
        step(corpus)
    assert all(domain.train.documents for domain in stage(settings, tmp_path / "work"))


def test_the_keys_that_a_message_lists_are_text_keys(corpus, tmp_path):
    write("new.jsonl", NESTED)(corpus)
    settings = CorpusSettings(source=str(corpus), text_key="content", validation_fraction=0.1)
    with pytest.raises(UserError, match=r"set corpus\.text_key to one of \['content\.text'\]"):
        stage(settings, tmp_path / "work")
    settings = dataclasses.replace(settings, text_key="content.text")
    assert all(domain.train.documents for domain in stage(settings, tmp_path / "work"))


def test_a_damaged_store_is_used_again_by_each_remedy(small_settings, small_store, tmp_path):
    path = tmp_path / "store"
    shutil.copytree(small_store.path, path)
    settings = dataclasses.replace(small_settings, store=str(path))
    ends = path / "domains" / "web" / "train.ends"
    ends.rename(tmp_path / "ends")
    with pytest.raises(UserError, match=f"put the file back, or move {path} away and run"):
        prepare(settings, progress=False)
    (tmp_path / "ends").rename(ends)
    assert prepare(settings, progress=False).fingerprint == small_store.fingerprint
    ends.unlink()
    path.rename(tmp_path / "away")
    assert prepare(settings, progress=False).fingerprint == small_store.fingerprint


def test_a_store_of_other_inputs_stays_and_another_is_made(small_settings, small_store, tmp_path):
    path = tmp_path / "store"
    shutil.copytree(small_store.path, path)
    settings = dataclasses.replace(small_settings, store=str(path), validation_fraction=0.3)
    remedy = "set corpus.store to another folder, or move this one away and prepare again"
    with pytest.raises(UserError, match=remedy):
        prepare(settings, progress=False)
    path.rename(tmp_path / "away")
    assert prepare(settings, progress=False).path == path


def test_a_corpus_that_is_gone_is_put_back_or_replaced_by_its_store(small_store, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", 5)
    settings = CorpusSettings(str(corpus), vocab_size=300, store=str(tmp_path / "store"))
    store = prepare(settings, progress=False)
    corpus.rename(tmp_path / "away")
    with pytest.raises(UserError, match="put it back, with its files' modification times") as gone:
        prepare(settings, progress=False)
    kept = re.search(r"corpus\.source=(\S+)", str(gone.value))[1]
    assert prepare(CorpusSettings(kept), progress=False) == store
    (tmp_path / "away").rename(corpus)
    assert prepare(settings, progress=False) == store


def test_a_prepared_store_without_the_derived_domain_is_left_or_made_anew(small_store):
    derived = {"noise": {"from": "web", "how": "base64"}}
    settings = CorpusSettings(str(small_store.path), derived=derived)
    with pytest.raises(
        UserError, match=r"set corpus\.source to the text, or leave corpus\.derived"
    ):
        prepare(settings, progress=False)
    assert prepare(CorpusSettings(str(small_store.path)), progress=False) == small_store


def test_no_message_advises_to_delete_but_what_is_dograph_s_own():
    """The remedy for a store in the making is the one exception: `open_work_dir` has checked it."""
    package = Path(decompression.__file__).parent
    advice = {
        (path.name, line.strip())
        for path in package.glob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"[\"'].*\b(delete|remove) ", line) and '"""' not in line
    }
    assert advice == {("dedup.py", 'return f"delete {folder} and prepare again"')}
