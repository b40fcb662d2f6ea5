"""First step: write documents to compressed parts, without duplicates, split and capped.

A domain is done when ``staged/<domain>.json`` exists; an interrupted run resumes after these.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from dograph.data.corpus.dedup import SeenDocuments, start_again
from dograph.data.corpus.derived import Derivation, DerivedWords
from dograph.data.corpus.document import cut_end, document_hash, hash_number
from dograph.data.corpus.left_out import DocumentsLeftOut, DocumentTally
from dograph.data.corpus.rows import BadRow
from dograph.data.corpus.split import (
    MOST_WEIGHED,
    HeldOutByHash,
    HeldOutBySize,
    Sizes,
    choose_by_size,
    is_near,
)
from dograph.errors import UserError
from dograph.files.checksums import new_digest, read_marker, write_verified
from dograph.files.records import Count, from_dict

PART_BYTES = 1_000_000
"""Text per part: small enough that two processes share a 2 MB domain evenly."""

Advance = Callable[[int], None]
"""Called with the bytes of text done since the last call."""


@dataclass(frozen=True)
class StagedSplit:
    """Counts of one split of one domain."""

    documents: Count
    bytes: Count
    parts: Count
    hashes: str
    """Digest of the documents' hashes."""


@dataclass(frozen=True)
class StagedDomain:
    """A domain whose parts are all on disk."""

    name: str
    train: StagedSplit
    validation: StagedSplit
    left_out: DocumentsLeftOut

    def split(self, name: str) -> StagedSplit:
        """A split by its name."""
        return self.train if name == "train" else self.validation


class PartWriter:
    """Writes one split: numbered parts of JSON strings, and the documents' hashes in order."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.documents = self.bytes = self.parts = 0
        self._folder = folder
        self._hashes = (folder / "hashes").open("wb")
        self._digest = new_digest()
        self._part: BinaryIO | None = None
        self._part_bytes = 0

    def close(self) -> None:
        """Close the files."""
        self._close_part()
        self._hashes.close()

    def add(self, text: str, digest: bytes, size: int) -> None:
        """Append a document of ``size`` bytes."""
        if self._part is None:
            path = part_path(self._folder, self.parts)
            compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
            self._part = compressor.stream_writer(path.open("wb"))
            self.parts += 1
        self._part.write(json.dumps(text).encode() + b"\n")
        number = hash_number(digest).to_bytes(8, "little")
        self._hashes.write(number)
        self._digest.update(number)
        self.documents += 1
        self.bytes += size
        self._part_bytes += size
        if self._part_bytes >= PART_BYTES:
            self._close_part()

    def counts(self) -> StagedSplit:
        """Counts of what has been written."""
        return StagedSplit(self.documents, self.bytes, self.parts, self._digest.hexdigest())

    def _close_part(self) -> None:
        if self._part is not None:
            self._part.close()
        self._part, self._part_bytes = None, 0


def part_path(folder: Path, number: int) -> Path:
    """Path of a split's part, given its number."""
    return folder / f"{number:06d}.jsonl.zst"


def read_part(path: Path) -> Iterator[str]:
    """Yield the documents of a part, in order; a UserError if it is missing or damaged."""
    remedy = start_again(path.parents[3])
    try:
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as reader,
            io.TextIOWrapper(io.BufferedReader(reader, 2**17), encoding="utf-8") as lines,
        ):
            for line in lines:
                text = json.loads(line)
                if not isinstance(text, str):
                    raise ValueError("it holds something else than text")
                yield text
    except (FileNotFoundError, ValueError, RecursionError, zstandard.ZstdError) as error:
        raise UserError(f"{path}: damaged ({error}): {remedy}") from error


def spread(folder: Path, domain: StagedDomain, split: str, most: int, parts: int) -> Iterator[str]:
    """Yield about ``most`` characters of a split's documents, from at most so many of its parts.

    ``folder`` is the store in the making. Parts are evenly spaced, each read from its beginning,
    and no document exceeds ``most``.
    """
    have = domain.split(split).parts
    count = min(have, parts)
    for index in range(count):
        path = part_path(folder / "staged" / domain.name / split, index * have // count)
        taken = 0
        for text in read_part(path):
            yield text[:most]
            taken += len(text)
            if taken >= most // count:
                break


@dataclass
class Staging:
    """Stages domains one after the other.

    ``folder`` is the store in the making, whose folder ``staged`` gets the parts;
    ``validation_fraction`` is the share of documents to hold out, by their hashes; where few
    documents decide what share of the bytes that is, by their sizes.
    """

    folder: Path
    validation_fraction: float

    def __post_init__(self) -> None:
        self._staged = self.folder / "staged"
        self._staged.mkdir(parents=True, exist_ok=True)
        self._seen = SeenDocuments(self._staged / "seen.sqlite")

    def close(self) -> None:
        """Close the set of documents."""
        self._seen.close()

    def domain(
        self,
        name: str,
        documents: Callable[[], Iterator[str | BadRow]],
        cap: int | None,
        where: str,
        advance: Advance,
    ) -> StagedDomain:
        """Stage one domain, unless an earlier run did.

        Args:
            name: name of the domain.
            documents: returns the domain's documents, and rows that are left out. It is called
                again if the choice by hash leaves a split empty, or a share of the bytes that is
                far from what was asked.
            cap: most bytes of text. None: all.
            where: place of the domain's text, for messages.
            advance: called with bytes of text done.
        """
        marker = self._staged / f"{name}.json"
        staged = _read_staged(marker, name)
        if staged is not None:
            advance(staged.train.bytes + staged.validation.bytes)
            return staged
        fraction = self.validation_fraction
        staged, sizes = self._write(name, documents(), cap, HeldOutByHash(fraction), advance)
        if not sizes:
            raise UserError(
                f"domain '{name}' holds no new text{_only(staged.left_out)}: {where}: add other "
                f"text to it, {_another_key(staged.left_out)}or move it out of the corpus"
            )
        if fraction > 0 and not self._is_fair(staged):
            if len(sizes) == 1:
                raise UserError(
                    f"domain '{name}' holds a single document{_only(staged.left_out)}: {where}: "
                    f"{_more_documents(staged.left_out)}, or set corpus.validation_fraction=0 to "
                    "train without validation"
                )
            by_size = choose_by_size(sizes, fraction)
            staged, _ = self._write(name, documents(), cap, by_size, lambda _: None)
        self._seen.commit()
        write_verified(marker, asdict(staged))
        return staged

    def _is_fair(self, staged: StagedDomain) -> bool:
        """Whether the splits' sizes are about what was asked, or so many documents' that are not.

        None is empty either way.
        """
        if 0 in (staged.train.documents, staged.validation.documents):
            return False
        documents = staged.train.documents + staged.validation.documents
        held_out, total = staged.validation.bytes, staged.train.bytes + staged.validation.bytes
        return documents > MOST_WEIGHED or is_near(held_out, total, self.validation_fraction)

    def derived(
        self, name: str, derivation: Derivation, origin: StagedDomain, advance: Advance
    ) -> StagedDomain:
        """Stage a derived domain from a staged one, unless an earlier run did.

        Every split is made from the same split of the origin, so that nothing made from held-out
        text reaches training. Duplicates stay: near copies are meant to be alike.
        """
        marker = self._staged / f"{name}.json"
        staged = _read_staged(marker, name)
        if staged is None:
            folder = self._staged / name
            shutil.rmtree(folder, ignore_errors=True)
            made, words = [], DerivedWords()
            for split in ("train", "validation"):
                begin = self._staged / origin.name / split
                parts = (part_path(begin, number) for number in range(origin.split(split).parts))
                made.append(_derive(folder / split, name, derivation, parts, words))
            words.check(name, derivation)
            staged = StagedDomain(name, made[0], made[1], DocumentsLeftOut())
            write_verified(marker, asdict(staged))
        advance(staged.train.bytes + staged.validation.bytes)
        return staged

    def _write(
        self,
        name: str,
        documents: Iterator[str | BadRow],
        cap: int | None,
        held_out: HeldOutByHash | HeldOutBySize,
        advance: Advance,
    ) -> tuple[StagedDomain, Sizes]:
        """Write both splits; returns the sizes of the first documents, up to ``MOST_WEIGHED``."""
        folder = self._staged / name
        shutil.rmtree(folder, ignore_errors=True)
        self._seen.begin(name)
        sizes: list[tuple[bytes, int]] = []
        taken, tally = 0, DocumentTally(name)
        train, held = PartWriter(folder / "train"), PartWriter(folder / "validation")
        with closing(train), closing(held):
            for text in tally.texts(documents):
                # JSON can hold half a surrogate pair, which is not text and has no tokens.
                data = text.encode("utf-8", "replace")
                digest, size = document_hash(data), len(data)
                if cap is not None and taken and taken + size > cap:
                    tally.cap = cap
                    break
                if owner := self._seen.add(digest, name):
                    tally.copies[owner] += 1
                    continue
                end = held_out.bytes_of(digest, size)
                if 0 < end < size:
                    for split, piece in zip((train, held), cut_end(data, end), strict=True):
                        split.add(piece.decode(), document_hash(piece), len(piece))
                else:
                    (held if end else train).add(data.decode(), digest, size)
                if len(sizes) < MOST_WEIGHED:
                    sizes.append((digest, size))
                taken += size
                advance(size)
        return StagedDomain(name, train.counts(), held.counts(), tally.left_out()), sizes


def _only(left_out: DocumentsLeftOut) -> str:
    """What else the domain's text holds, for a message."""
    reasons = "; ".join(left_out.reasons())
    return f" ({reasons})" if reasons else ""


def _another_key(left_out: DocumentsLeftOut) -> str:
    """The remedy for a domain whose rows hold no text."""
    is_wrong = left_out.bad_rows > 0
    return "set corpus.text_key to the key that holds it, " if is_wrong else ""


def _more_documents(left_out: DocumentsLeftOut) -> str:
    """The remedy for a domain of a single document."""
    return "add a second" if left_out.cap is None else "raise corpus.megabytes"


def _derive(
    folder: Path, name: str, derivation: Derivation, parts: Iterable[Path], words: DerivedWords
) -> StagedSplit:
    """Write a split of the derived domain ``name``; each document's seed is the name and itself."""
    writer = PartWriter(folder)
    with closing(writer):
        for part in parts:
            for text in read_part(part):
                seed = name.encode() + document_hash(text.encode())
                made = derivation.apply(text, seed)
                words.add(text, made)
                data = made.encode()
                writer.add(made, document_hash(data), len(data))
    return writer.counts()


def _read_staged(marker: Path, name: str) -> StagedDomain | None:
    """The domain that an earlier run staged; None if there is none or its marker is damaged."""
    try:
        staged = from_dict(StagedDomain, read_marker(marker))
    except ValueError:
        return None
    return staged if staged.name == name else None
