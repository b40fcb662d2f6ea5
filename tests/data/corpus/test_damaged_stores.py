"""Damaged, untrusted and half-prepared stores."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from dograph.data.corpus.dedup import SeenDocuments
from dograph.data.corpus.existing_store import inputs_digest
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.source import open_source
from dograph.data.corpus.store import Store
from dograph.data.corpus.work_dir import INPUTS
from dograph.data.domains import Documents, DomainSequences
from dograph.errors import UserError, quoted_user_error
from dograph.files.checksums import file_digest, json_digest, read_verified, write_verified

CHUNK = "domains/web/train/chunk-0-0.bin"
INDEX = "domains/web/train/index.json"


@pytest.fixture
def copy(small_store, tmp_path):
    return shutil.copytree(small_store.path, tmp_path / "copy")


def flip(path, place=-3):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def forge(copy, change):
    """Change the manifest and renew its digest, as an attacker would."""
    manifest = read_verified(copy / "manifest.json")
    change(manifest)
    write_verified(copy / "manifest.json", manifest)


def forge_file(copy, name, data):
    (copy / name).write_bytes(data)
    forge(copy, lambda manifest: manifest["files"].update({name: file_digest(copy / name)}))


def test_the_manifest_has_the_digest_of_every_other_file(small_store):
    files = [path for path in small_store.path.rglob("*") if path.is_file()]
    names = {path.relative_to(small_store.path).as_posix() for path in files}
    assert set(small_store.files) == names - {"manifest.json"}
    for name, digest in small_store.files.items():
        assert file_digest(small_store.path / name) == digest


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", INDEX])
def test_a_flipped_bit_shows_when_the_store_is_opened(copy, name):
    flip(copy / name, place=len((copy / name).read_bytes()) // 2)
    with pytest.raises(UserError, match=rf"{name}.*damaged.*dograph prepare"):
        Store.open(copy)


def test_a_flipped_bit_of_a_chunk_shows_when_it_is_read(copy):
    flip(copy / CHUNK)
    store = Store.open(copy)
    sequences, documents = (
        DomainSequences(store, "web", "train", 15),
        Documents(store, "web", "train"),
    )
    for read in (sequences, documents):
        with pytest.raises(UserError, match=r"web/train/chunk-0-0.bin.*checksum.*move .*copy away"):
            read[0]


@pytest.mark.parametrize("ending", ["ends", "hashes"])
def test_a_flipped_bit_of_ends_and_hashes_shows_when_they_are_mapped(copy, ending):
    flip(copy / f"domains/web/train.{ending}")
    store = Store.open(copy)
    with pytest.raises(UserError, match=rf"web/train.{ending}"):
        getattr(store, f"document_{ending}")("web", "train")


@pytest.mark.parametrize("fault", ["flip", "cut", "delete"])
def test_a_chunk_damaged_after_it_was_read_is_not_read_again(copy, fault):
    store = Store.open(copy)
    sequences = DomainSequences(store, "web", "train", 15)
    before = sequences[3]
    kept = (copy / CHUNK).read_bytes()
    if fault == "flip":
        flip(copy / CHUNK)
    elif fault == "cut":
        os.truncate(copy / CHUNK, 100)
    else:
        (copy / CHUNK).unlink()
    with pytest.raises(UserError, match=r"chunk-0-0.bin"):
        sequences[4]
    (copy / CHUNK).write_bytes(kept)
    assert (sequences[3] == before).all()


def test_tokens_outside_the_vocabulary_are_refused(copy):
    data = bytearray((copy / CHUNK).read_bytes())
    data[-2:] = (300).to_bytes(2, "little")
    forge_file(copy, CHUNK, data)
    with pytest.raises(UserError, match="token 300 of a vocabulary of 300"):
        DomainSequences(Store.open(copy), "web", "train", 15)[0]


def test_ends_that_do_not_rise_are_refused(copy):
    name = "domains/web/train.ends"
    data = bytearray((copy / name).read_bytes())
    data[:8] = data[8:16]
    forge_file(copy, name, data)
    with pytest.raises(UserError, match=r"train.ends.*follow"):
        Documents(Store.open(copy), "web", "train")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", True),
        ("vocab_size", -1),
        ("vocab_size", 10**30),
        ("vocab_size", 299),
        ("end_of_text", 300),
        ("end_of_text", 0.0),
        ("token_type", "object"),
        ("token_type", ["uint16"]),
        ("fingerprint", "../x"),
        ("domains", []),
        ("domains", "notes"),
        ("files", {}),
        ("format", True),
    ],
)
def test_a_manifest_with_wrong_values_is_refused(copy, key, value):
    forge(copy, lambda manifest: manifest.update({key: value}))
    with pytest.raises(UserError, match=r"manifest.json"):
        Store.open(copy)


@pytest.mark.parametrize("name", ["../notes", "/etc", "a\0b", "", "web", "Ω", "x/y", 7, None])
def test_a_domains_name_from_a_manifest_passes_the_same_rule(copy, name):
    forge(copy, lambda manifest: manifest["domains"][0].update({"name": name}))
    with pytest.raises(UserError, match=r"manifest.json"):
        Store.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["chunks"][0].update(filename="../../../outside.bin"),
        lambda index: index["chunks"][0].update(filename="/etc/passwd"),
        lambda index: index["chunks"][0].update(dim=True),
        lambda index: index["chunks"][0].update(chunk_size=index["chunks"][0]["chunk_size"] + 1),
        lambda index: index["config"].update(data_format=["pickle"]),
        lambda index: index["config"].update(compression="zstd"),
        lambda index: index["config"].update(encryption={"algorithm": "fernet", "level": "chunk"}),
        lambda index: index["config"].update(remote_dir="s3://bucket"),
        lambda index: index.update(shards=[]),
        lambda index: index.update(chunks=None),
    ],
)
def test_an_untrusted_index_is_refused(copy, change):
    index = json.loads((copy / INDEX).read_text())
    change(index)
    forge_file(copy, INDEX, json.dumps(index).encode())
    with pytest.raises(UserError, match=r"web/train/index.json"):
        Store.open(copy)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, "NaN", '{"a": 1, "a": 1}', "1" * 5000, "\0", "\ud800", "[]", ""]
)
@pytest.mark.parametrize("name", ["manifest.json", INDEX])
def test_untrusted_json_is_refused(copy, name, text):
    data = text.encode("utf-8", "surrogatepass")
    if name == INDEX:
        forge_file(copy, name, data)
    else:
        (copy / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
        Store.open(copy)


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", INDEX, CHUNK, "domains/web"])
def test_links_and_pipes_in_a_store_are_refused(copy, tmp_path, name):
    outside = tmp_path / "outside"
    (copy / name).rename(outside)
    (copy / name).symlink_to(outside)
    with pytest.raises(UserError, match=name):
        Store.open(copy)
    if outside.is_file() and name != "manifest.json":
        (copy / name).unlink()
        os.mkfifo(copy / name)
        with pytest.raises(UserError, match=name):
            Store.open(copy)


def test_a_store_of_an_earlier_version_is_named_so(copy):
    manifest = read_verified(copy / "manifest.json")
    del manifest["files"]
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(
        UserError, match=r"format is 1: this version of dograph reads 2.*move .*copy away"
    ):
        Store.open(copy)


def test_a_marker_spelled_otherwise_or_changed_is_none(tmp_path):
    path = tmp_path / "marker.json"
    write_verified(path, {"a": 1})
    assert read_verified(path) == {"a": 1}
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"\n", whole.replace(b"1", b"2", 1), b'{"a": 1}'):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"checksum|spelled"):
            read_verified(path)
    path.write_text(json.dumps({"a": 1, "digest": json_digest({"a": 1})}))
    with pytest.raises(ValueError, match="spelled"):
        read_verified(path)


class Half:
    """A preparation that was interrupted before its manifest was written."""

    def __init__(self, small_settings, place, monkeypatch):
        self.settings = CorpusSettings(**{**vars(small_settings), "store": str(place)})
        self.place, self.work_dir = place, place.with_name(place.name + ".partial")

        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("dograph.data.corpus.prepare._Build._manifest", stop)
            prepare(self.settings, progress=False)


@pytest.fixture(scope="module")
def once(small_settings, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield Half(small_settings, tmp_path_factory.mktemp("half") / "half", patch)


@pytest.fixture
def half(once, tmp_path):
    place = tmp_path / "half"
    work_dir = shutil.copytree(once.work_dir, tmp_path / once.work_dir.name)
    settings = CorpusSettings(**{**vars(once.settings), "store": str(place)})
    return SimpleNamespace(settings=settings, place=place, work_dir=work_dir)


def same_files(left, right):
    names = [sorted(p.relative_to(s) for p in s.rglob("*") if p.is_file()) for s in (left, right)]
    return names[0] == names[1] and all(
        (left / name).read_bytes() == (right / name).read_bytes() for name in names[0]
    )


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (name, fault)
        for name in (
            "staged/web.json",
            "tokenised/web.train.json",
            "tokenizer.json",
            "tokenised/.tokenizer.json",
        )
        for fault in ("flip", "cut", "garbage", "missing")
    ],
)
def test_what_is_damaged_in_a_half_prepared_store_is_redone(half, small_store, name, fault):
    path = half.work_dir / name
    data = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes({"flip": data[:9] + b"!" + data[10:], "cut": data[:20]}.get(fault, b"\0["))
    assert same_files(prepare(half.settings, progress=False).path, small_store.path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("staged/seen.sqlite", "garbage"),
        ("staged/seen.sqlite", "cut"),
        ("staged/web/train/000000.jsonl.zst", "flip"),
        ("staged/web/train/000000.jsonl.zst", "cut"),
        ("staged/web/train/000000.jsonl.zst", "garbage"),
        ("staged/web/train/hashes", "flip"),
        ("staged/web/train/hashes", "missing"),
        ("inputs.json", "cut"),
        ("inputs.json", "garbage"),
    ],
)
def test_what_cannot_be_redone_is_named(half, name, fault):
    path = half.work_dir / name
    data = path.read_bytes()
    (
        half.work_dir / ("staged/web.json" if "sqlite" in name else "tokenised/web.train.json")
    ).unlink()
    middle = len(data) // 2
    changed = {
        "flip": data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :],
        "cut": data[:middle],
        "garbage": b"\0[" * 100,
    }
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[fault])
    cut_part = fault == "cut" and name.endswith(".zst")  # only the number of documents tells
    with pytest.raises(UserError, match="documents stored" if cut_part else name):
        prepare(half.settings, progress=False)


def test_the_remedies_for_a_half_prepared_store_help(half, small_store):
    (half.work_dir / "staged" / "seen.sqlite").write_bytes(b"garbage" * 100)
    (half.work_dir / "staged" / "web.json").unlink()
    with pytest.raises(UserError, match=f"delete {half.work_dir} and prepare again"):
        prepare(half.settings, progress=False)
    shutil.rmtree(half.work_dir)
    half.work_dir.mkdir()
    (half.work_dir / "inputs.json").write_text('"mine"')
    with pytest.raises(UserError, match=r"is not an interrupted preparation .*: move it away"):
        prepare(half.settings, progress=False)
    half.work_dir.rename(half.place.with_name("mine"))
    assert same_files(prepare(half.settings, progress=False).path, small_store.path)


@pytest.mark.parametrize("name", ["staged", "tokenised", "domains", "staged/web", "litdata"])
def test_a_half_prepared_store_with_links_touches_nothing_outside(half, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "web").mkdir()
    (outside / "web" / "mine").write_text("mine")
    shutil.rmtree(half.work_dir / name, ignore_errors=True)
    (half.work_dir / name).symlink_to(outside)
    with pytest.raises(UserError, match="is a link"):
        prepare(half.settings, progress=False)
    assert [path.relative_to(outside) for path in outside.rglob("*")] == [
        Path("web"),
        Path("web/mine"),
    ]


@pytest.mark.parametrize("kind", [os.symlink, os.link])
@pytest.mark.parametrize(
    "name", ["tokenise.log", "inputs.json.new", "tokenizer.new", "staged/web.json.new"]
)
def test_a_half_prepared_store_writes_through_no_link(half, tmp_path, name, kind):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (half.work_dir / name).unlink(missing_ok=True)
    kind(mine, half.work_dir / name)
    with pytest.raises(UserError, match="is a link"):
        prepare(half.settings, progress=False)
    assert mine.read_text() == "mine"


def test_links_in_place_of_the_folder_and_the_lock_are_refused(small_settings, tmp_path):
    settings = CorpusSettings(**{**vars(small_settings), "store": str(tmp_path / "store")})
    outside = tmp_path / "outside"
    outside.mkdir()
    inputs = json.dumps(inputs_digest(open_source(settings), settings))
    (outside / INPUTS).write_text(inputs)
    (tmp_path / "store.partial").symlink_to(outside)
    with pytest.raises(UserError, match="is a link"):
        prepare(settings, progress=False)
    assert [path.name for path in outside.iterdir()] == [INPUTS]
    (tmp_path / "store.lock").unlink()
    (tmp_path / "store.lock").symlink_to(outside / INPUTS)
    with pytest.raises(UserError, match=r"store.lock"):
        prepare(settings, progress=False)
    assert (outside / INPUTS).read_text() == inputs


@pytest.mark.parametrize("name", ["staged", "tokenised", "domains", "tokenise.log"])
def test_a_file_where_a_folder_should_be_is_named(half, name):
    path = half.work_dir / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(UserError, match=name):
        prepare(half.settings, progress=False)


def test_a_journal_that_names_another_file_is_refused(tmp_path):
    (tmp_path / "staged").mkdir()
    path = tmp_path / "staged" / "seen.sqlite"
    journal = path.with_name("seen.sqlite-journal")
    journal.write_bytes(b"\0" * 512 + bytes.fromhex("d9d505f920a163d7"))
    with pytest.raises(UserError, match=r"seen\.sqlite-journal"):
        SeenDocuments(path)


def test_a_workers_error_is_quoted():
    traceback = "Caught UserError\nTraceback\n  raise x\ndograph.errors.UserError: a: b\n"
    assert quoted_user_error(traceback) == "a: b"
    assert quoted_user_error("a: b") is None
