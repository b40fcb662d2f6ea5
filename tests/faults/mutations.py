"""Ways to damage a small store, each by chance; and what a reader may make of it."""

import json
import os
import shutil
import signal
from contextlib import contextmanager

import numpy as np
from nested import slots

from dograph.data.corpus.store import Store
from dograph.data.domains import Documents, DomainSequences
from dograph.files.checksums import file_digest, read_verified, write_verified

CONTEXT = 15
ODD = [
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, 1.5, float("nan"), float("inf"), "", "\0",
    "../x", "/etc/passwd", "a/b", "..", "é", "\ud800", "x" * 5000, [], {}, [[]], {"a": None},
    "s3://bucket/x", ["pickle:0"], "uint16", "int32", "int64", "no_header_numpy:4", "zstd",
]  # fmt: skip


def everything(path):
    """All tokens that a reader of the store can get, by sequence and by document."""
    store = Store.open(path)
    content = {}
    for entry in store.domains:
        for split in entry.splits():
            sequences = DomainSequences(store, entry.name, split, CONTEXT)
            tokens = np.stack([sequences[index] for index in range(len(sequences))])
            touched = sequences.documents(np.arange(len(sequences)))
            documents = Documents(store, entry.name, split)
            texts = np.concatenate([documents[index] for index in range(len(documents))])
            hashes = np.array(store.document_hashes(entry.name, split))
            content[entry.name, split] = (tokens, touched, texts, hashes)
    return content


def same(left, right):
    """Whether two readers got the same, to the bit."""
    return left.keys() == right.keys() and all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for key in left
        for a, b in zip(left[key], right[key], strict=True)
    )


class LateError(BaseException):
    """No OSError, or a store's own code would take it for one of the disk."""


@contextmanager
def at_most(seconds):
    """Ends what waits for longer."""

    def late(*_):
        raise LateError(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def files_of(store):
    return sorted(path for path in store.rglob("*") if path.is_file())


def flip(store, chance):
    path = chance.choice(files_of(store))
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 8])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"flip {path}"


def cut(store, chance):
    path = chance.choice(files_of(store))
    size = path.stat().st_size
    os.truncate(path, chance.choice([0, size - 1, chance.randrange(size)]))
    return f"cut {path}"


def extend(store, chance):
    path = chance.choice(files_of(store))
    with path.open("ab") as file:
        file.write(chance.choice([b"\0", b"\n", b" ", chance.randbytes(chance.randint(1, 5000))]))
    return f"extend {path}"


def delete(store, chance):
    path = chance.choice(files_of(store) + sorted(p for p in store.rglob("*") if p.is_dir()))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"delete {path}"


def swap(store, chance):
    one, other = chance.sample(files_of(store), 2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"swap {one} {other}"


def replace(store, chance):
    path = chance.choice(files_of(store))
    kept = store.with_name("outside")
    shutil.copyfile(path, kept)
    path.unlink()
    kind = chance.choice(["folder", "link", "broken link", "loop", "pipe", "link inside"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        others = {"broken link": store / "nowhere", "loop": path, "link inside": store / "copy"}
        if kind == "link inside":
            shutil.copyfile(kept, store / "copy")
        path.symlink_to(others.get(kind, kept))
    return f"{kind} for {path}"


def nested(depth):
    return json.loads("[" * depth + "]" * depth)


def distort(value, chance):
    """Change one thing of a JSON value, whatever its type."""
    holder, key = chance.choice(slots(value))
    kind = chance.choice(["odd", "odd", "odd", "near", "drop", "extra", "nest", "twin", "exchange"])
    if kind == "near" and type(holder[key]) is int:
        holder[key] += chance.choice([-1, 1, 2, 1000])
    elif kind == "drop":
        del holder[key]
    elif kind == "extra" and isinstance(holder, dict):
        holder[chance.choice(["x", "", "\0", "../x", "remote"])] = chance.choice(ODD)
    elif kind == "nest":
        holder[key] = nested(chance.choice([3, 100, 300]))
    elif kind == "twin" and isinstance(holder, list):
        holder.append(holder[key])
    elif kind == "exchange":
        other, name = chance.choice(slots(value))
        try:
            holder[key], other[name] = other[name], holder[key]
            json.dumps(value)
        except (KeyError, IndexError, ValueError):  # one was inside the other
            holder[key] = None
    else:
        holder[key] = chance.choice(ODD)
    return kind


def seal(store, facts):
    """What a stranger would do: digests that fit."""
    try:
        for path in files_of(store):
            name = path.relative_to(store).as_posix()
            if name in facts.get("files", ()):
                facts["files"][name] = file_digest(path)
    except (AttributeError, TypeError):
        pass
    write_verified(store / "manifest.json", facts)


def forge_manifest(store, chance):
    facts = read_verified(store / "manifest.json")
    kinds = [distort(facts, chance) for _ in range(chance.choice([1, 1, 2]))]
    write_verified(store / "manifest.json", facts)
    return f"forged {store / 'manifest.json'}: {kinds}"


def forge_index(store, chance):
    path = chance.choice(sorted(store.rglob("index.json")))
    index = json.loads(path.read_bytes())
    kinds = [distort(index, chance) for _ in range(chance.choice([1, 1, 2]))]
    path.write_text(json.dumps(index))
    seal(store, read_verified(store / "manifest.json"))
    return f"forged {path}: {kinds}"


def forge_text(store, chance):
    """JSON that no writer of JSON writes."""
    path = chance.choice([store / "manifest.json", *sorted(store.rglob("index.json"))])
    text = path.read_text()
    deep = chance.choice([10**3, 10**5])
    key = chance.choice(
        ['"chunks": ', '"config": '] if path.name == "index.json" else ['"files": ']
    )
    text = chance.choice([
        "[" * deep, '{"a":' * deep, "[" * deep + "]" * deep, "{}", "[]", "null", "NaN", "1" * 6000,
        text.replace("{", '{"format": 2, "format": 2, ', 1), text.replace(key, key + "1e999, ", 1),
        text.replace(key, key + "[" * deep + "]" * deep + ', "x": ', 1), text + text, text[::-1],
        text.replace(key, key + "{}, " + key, 1), "\ufeff" + text, text.replace('"', "\0", 1),
    ])  # fmt: skip
    path.write_text(text)
    if path.name == "index.json":
        seal(store, read_verified(store / "manifest.json"))
    return f"text of {path}"


def forge_bytes(store, chance):
    """Any file but the JSON ones changes, and the digests fit: tokens out of range, headers."""
    path = chance.choice([p for p in files_of(store) if p.suffix in (".bin", ".ends")])
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(8)
    data[place] = (data[place] + chance.randint(1, 255)) % 256
    path.write_bytes(data)
    seal(store, read_verified(store / "manifest.json"))
    return f"forged bytes of {path}"


def forge_tokenizer(store, chance):
    path = store / "tokenizer.json"
    if chance.random() < 0.5:
        value = json.loads(path.read_bytes())
        distort(value, chance)
        path.write_text(json.dumps(value))
    else:
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    seal(store, read_verified(store / "manifest.json"))
    return f"forged {path}"


DAMAGE = [flip, cut, extend, delete, swap, replace]
FORGERIES = [forge_manifest, forge_manifest, forge_index, forge_index, forge_text, forge_tokenizer]
