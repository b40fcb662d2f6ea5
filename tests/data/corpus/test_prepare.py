import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from litdata import StreamingDataset, TokensLoader
from small_corpora import sentences, write_corpus
from tokenizers import Tokenizer, models, pre_tokenizers

from dograph.data.corpus.document import document_hash, hash_number
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.files.checksums import json_digest
from dograph.files.lock import exclusive


def stored_tokens(store, domain, split):
    folder = store.folder(domain, split)
    arrays = []
    for chunk in json.loads((folder / "index.json").read_text())["chunks"]:
        data = (folder / chunk["filename"]).read_bytes()
        start = 4 * (2 + int(np.frombuffer(data, np.uint32, 1)[0]))
        arrays.append(np.frombuffer(data[start:], store.token_type))
    return np.concatenate(arrays)


def content(store):
    """Every file of a store."""
    files = {}
    for path in sorted(store.path.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(store.path))] = path.read_bytes()
    return files


def test_counts_agree_with_what_is_stored(small_store):
    assert [entry.name for entry in small_store.domains] == ["notes", "web"]
    for entry in small_store.domains:
        for split in ("train", "validation"):
            tokens = stored_tokens(small_store, entry.name, split)
            ends = small_store.document_ends(entry.name, split)
            ended = np.flatnonzero(tokens == small_store.end_of_text) + 1
            np.testing.assert_array_equal(ends, ended)
            assert ends.dtype == np.int64
            assert len(tokens) == ends[-1]
            assert tokens.max() < small_store.vocab_size
        assert entry.train_tokens == small_store.document_ends(entry.name, "train")[-1]
    assert np.dtype(small_store.token_type) == np.uint16


def test_stored_documents_are_the_source_in_the_order_of_their_hashes(small_store):
    tokenizer = small_store.tokenizer()
    texts = []
    for split in ("train", "validation"):
        tokens = stored_tokens(small_store, "web", split)
        ends = small_store.document_ends("web", split)
        for start, end, number in zip(
            [0, *ends[:-1]], ends, small_store.document_hashes("web", split), strict=True
        ):
            text = tokenizer.decode(tokens[start : end - 1].tolist())
            assert hash_number(document_hash(text.encode())) == number
            texts.append(text)
    assert sorted(texts) == sorted(sentences(2, 120))


def test_litdata_streams_the_folder(small_store):
    folder = small_store.folder("web", "train")
    dataset = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=32), shuffle=False)
    tokens = stored_tokens(small_store, "web", "train")
    np.testing.assert_array_equal(dataset[3], tokens[96:128])


def test_a_second_prepare_rebuilds_nothing(small_store, small_settings):
    before = {path: path.stat().st_mtime_ns for path in small_store.path.rglob("*")}
    assert prepare(small_settings, progress=False) == small_store
    assert {path: path.stat().st_mtime_ns for path in small_store.path.rglob("*")} == before


def test_other_settings_do_not_overwrite_a_store(small_store, small_settings):
    other = dataclasses.replace(small_settings, vocab_size=320)
    with pytest.raises(UserError, match="made from other inputs"):
        prepare(other, progress=False)
    assert Store.open(small_store.path) == small_store


INTERRUPTED = """
import sys
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
source, store = sys.argv[1:]
if __name__ == "__main__":
    prepare(CorpusSettings(source=source, vocab_size=300, validation_fraction=0.2, store=store))
"""


@pytest.mark.parametrize("moment", ["staged/notes.json", "tokenised/notes.train.json"])
def test_killed_then_prepared_again_equals_an_uninterrupted_run(
    moment, small_store, small_corpus, small_settings, tmp_path
):
    store = tmp_path / "store"
    partial = tmp_path / "store.partial"
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(small_corpus), str(store)], env=environment
    )
    limit = time.monotonic() + 60
    while not (partial / moment).exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not store.exists()
    with pytest.raises(UserError, match="incomplete"):
        Store.open(store)
    resumed = prepare(dataclasses.replace(small_settings, store=str(store)), progress=False)
    assert content(resumed) == content(small_store)
    assert not partial.exists()


def byte_tokenizer(path):
    """A byte-level BPE of a few merges, which no release of a trainer decides."""
    alphabet = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("g", "r"), ("gr", "a"), ("Ġ", "w"), ("t", "e")]
    words = [*alphabet, *(first + second for first, second in merges)]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(path))
    return str(path)


def test_the_same_text_gives_the_same_bytes_for_ever(tmp_path, cold_tokenizing):
    """What was written once, by large and small splits; runs of old stores go on by it."""
    corpus = write_corpus(tmp_path / "corpus", 20)
    lines = [json.dumps({"text": text}) for text in sentences(3, 600, words=500)]
    (corpus / "large.jsonl").write_text("\n".join(lines))
    settings = CorpusSettings(
        source=str(corpus),
        tokenizer=byte_tokenizer(tmp_path / "tokenizer.json"),
        validation_fraction=0.2,
        store=str(tmp_path / "store"),
    )
    store = prepare(settings, progress=False)
    files = {path: digest for path, digest in store.files.items() if path.startswith("domains/")}
    assert len([path for path in files if path.endswith(".bin")]) == 7  # two of large's train split
    assert json_digest(files) == "6c8c9d7c13806e617ef013a895082987"


def test_a_wide_vocabulary_and_a_tokenizer_file(tmp_path):
    words = {word: 70_000 + n for n, word in enumerate(["a", "b", "c", "d", "<eos>", "?"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "corpus").mkdir()
    lines = [json.dumps({"text": text}) for text in ("a b", "c <eos> d", "b b a")]
    (tmp_path / "corpus" / "letters.jsonl").write_text("\n".join(lines))
    store = prepare(
        CorpusSettings(
            source=str(tmp_path / "corpus"),
            tokenizer=str(tmp_path / "tokenizer.json"),
            validation_fraction=0,
            store=str(tmp_path / "store"),
        ),
        progress=False,
    )
    assert store.vocab_size == 70_006
    tokens = stored_tokens(store, "letters", "train")
    assert tokens.dtype == np.int32
    # An end of text inside a document would end it.
    assert (tokens == words["<eos>"]).sum() == len(store.document_ends("letters", "train")) == 3
    with pytest.raises(UserError, match="no validation documents"):
        store.folder("letters", "validation")


def copy_of(store, folder):
    subprocess.run(["cp", "-r", str(store.path), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", ["manifest.json", "domains/web/train.ends"])
def test_a_damaged_store_is_refused_with_the_file(small_store, tmp_path, name):
    copy = copy_of(small_store, tmp_path / "copy")
    with (copy / name).open("r+b") as file:
        file.truncate(5)
    with pytest.raises(UserError, match=r"damaged.*dograph prepare"):
        Store.open(copy)


def test_a_missing_chunk_is_found(small_store, tmp_path):
    copy = copy_of(small_store, tmp_path / "copy")
    next((copy / "domains" / "web" / "train").glob("chunk*")).unlink()
    with pytest.raises(UserError, match="chunk-0-0"):
        Store.open(copy)
    with pytest.raises(UserError, match="has no manifest"):
        Store.open(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no domain 'wep'"):
        small_store.folder("wep", "train")


def test_a_full_disk_is_named_with_the_remedy(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dograph.data.corpus.staging.PartWriter.add", full)
    settings = CorpusSettings(
        source=str(write_corpus(tmp_path / "corpus", 5)), store=str(tmp_path / "store")
    )
    with pytest.raises(UserError, match=r"store: No space left .*: free some space or set corpus"):
        prepare(settings, progress=False)
    assert not (tmp_path / "store").exists()


def test_a_failing_tokenizer_process_tells_why(tmp_path, monkeypatch, cold_tokenizing):
    settings = CorpusSettings(
        source=str(write_corpus(tmp_path / "corpus", 20)),
        vocab_size=300,
        store=str(tmp_path / "store"),
    )
    monkeypatch.setattr("dograph.data.corpus.prepare.token_type", lambda _: "no_such_type")
    with pytest.raises(RuntimeError, match="no_such_type"):
        prepare(settings, progress=False)
    assert not (tmp_path / "store").exists()


def test_a_second_prepare_of_the_same_store_waits_for_the_first(small_settings, small_store):
    lock = small_store.path.with_name(small_store.path.name + ".lock")
    with ThreadPoolExecutor() as pool:
        with exclusive(lock, lambda: None):
            second = pool.submit(prepare, small_settings, progress=False)
            time.sleep(0.3)
            assert not second.done()
        assert second.result() == small_store


def test_the_environment_is_prepared_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("DOGRAPH_CACHE", str(tmp_path))
    store = prepare(CorpusSettings(megabytes=0.05, vocab_size=300), progress=False)
    assert store.path.parent == Path(tmp_path)
    assert store.path.name.startswith("environment-")
    assert len(store.domains) >= 6


def test_a_prepared_store_is_a_corpus_as_it_is(small_store):
    as_source = CorpusSettings(source=str(small_store.path), vocab_size=999)
    assert prepare(as_source, progress=False) == small_store


def test_settings_that_a_prepared_store_does_not_follow_are_named(small_store, capfd):
    own = {"source": str(small_store.path), "vocab_size": small_store.vocab_size}
    prepare(CorpusSettings(**own))
    assert "without effect" not in capfd.readouterr().out
    prepare(CorpusSettings(**own, megabytes={"a": 0.1}, validation_fraction=0.5))
    line = "used as it is: without effect: corpus.megabytes ({'a': 0.1}), corpus.validation_frac"
    assert line in " ".join(capfd.readouterr().out.split())
    prepare(CorpusSettings(**own, megabytes=1), progress=False)
    assert "without effect: corpus.megabytes (1)" in capfd.readouterr().out
    prepare(CorpusSettings(**own, tokenizer="gpt2"), progress=False)
    assert "without effect: corpus.tokenizer (gpt2)" in capfd.readouterr().out


def test_a_prepared_store_of_another_tokenizer_than_asked_for_is_refused(small_store, tmp_path):
    tokenizer = small_store.path / "tokenizer.json"
    settings = {"source": str(small_store.path)}
    same = CorpusSettings(**settings, tokenizer=str(tokenizer))
    assert prepare(same, progress=False) == small_store
    other = json.loads(tokenizer.read_text())
    other["model"]["merges"].pop()
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"other\.json, but corpus\.source is the prepared store"):
        prepare(CorpusSettings(**settings, tokenizer=str(tmp_path / "other.json")), progress=False)
    gone = CorpusSettings(**settings, tokenizer=str(tmp_path / "gone.json"))
    assert prepare(gone, progress=False) == small_store  # a moved run has its store alone
