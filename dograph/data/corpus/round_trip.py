"""What is left of a text that a tokenizer encodes and decodes again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders

from dograph.data.corpus.staging import StagedDomain, spread
from dograph.files.records import Count

SAMPLE_CHARACTERS, SAMPLE_PARTS = 2_000_000, 16
"""Text of all domains that is encoded and decoded again, and parts of each split it is from."""
PIECE_CHARACTERS = 4_000
"""Characters of each piece of a document that is encoded and decoded."""
LOSSLESS = 0.99
"""Share of the bytes from which on bits per byte mean something: the model predicts the text."""
LEAST_KEPT = 0.25
"""Share of the bytes that a tokenizer must keep: blanks alone are a sixth of English text."""


@dataclass(frozen=True)
class RoundTrip:
    """Counts of a sample of text that was encoded and decoded again."""

    bytes: Count
    kept: Count
    """Bytes of the characters that the decoded text has, too."""
    decoded: Count
    """Bytes of the decoded text, without unknown tokens."""
    tokens: Count
    unknown: Count
    """Tokens that stand for any text that the vocabulary lacks."""

    @property
    def share(self) -> float:
        """Share of the bytes that come back."""
        return min(1.0, self.kept / self.bytes) if self.bytes else 1.0

    @property
    def bytes_per_decoded(self) -> float:
        """Bytes of the text for each byte that is decoded: 1 if all comes back and no more."""
        return self.bytes / self.decoded if self.decoded else 1.0

    def __add__(self, other: RoundTrip) -> RoundTrip:
        """The counts of both samples together."""
        ours, theirs = vars(self), vars(other)
        return RoundTrip(**{name: ours[name] + theirs[name] for name in ours})


class RoundTripMeter:
    """Encodes and decodes texts as a store does: special tokens that are spelt out are text.

    Characters are compared by their counts, without their places, which a tokenizer keeps. Sets
    the tokenizer as `reading` does.
    """

    def __init__(self, tokenizer: Tokenizer, end_of_text: int) -> None:
        self._tokenizer = reading(tokenizer)
        self._unknown = unknown_token(tokenizer)
        self._dropped = {end_of_text, self._unknown}

    def __call__(self, texts: Iterable[str]) -> RoundTrip:
        """Measure the texts together."""
        size = kept = decoded = tokens = unknown = 0
        for text in texts:
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
            known = [number for number in ids if number not in self._dropped]
            back = self._tokenizer.decode(known, skip_special_tokens=False)
            whole = len(text.encode())
            size += whole
            decoded += len(back.encode("utf-8", "replace"))
            kept += whole if back == text else _bytes_in_both(text, back)
            tokens += len(ids)
            unknown += sum(number == self._unknown for number in ids)
        return RoundTrip(size, kept, decoded, tokens, unknown)


def measure_domains(
    meter: RoundTripMeter,
    folder: Path,
    domains: list[StagedDomain],
    advance: Callable[[int], None],
) -> dict[str, RoundTrip]:
    """Measure a sample of both splits of each domain of the store in the making, by name."""
    most = SAMPLE_CHARACTERS // (2 * len(domains))

    def sampled(domain: StagedDomain) -> Iterator[str]:
        for split in ("train", "validation"):
            for text in spread(folder, domain, split, most, SAMPLE_PARTS):
                yield from pieces(text)

    round_trips = {}
    for domain in domains:
        round_trips[domain.name] = meter(sampled(domain))
        advance(round_trips[domain.name].bytes)
    return round_trips


def hardly_any_kept(round_trips: dict[str, RoundTrip]) -> str | None:
    """How little of all domains' text comes back, for a message; None if it is enough."""
    together = sum(round_trips.values(), RoundTrip(0, 0, 0, 0, 0))
    if together.share >= LEAST_KEPT:
        return None
    return (
        f"with which {together.share:.0%} of the text comes back when it is encoded and decoded "
        f"({together.unknown:,} of {together.tokens:,} tokens are unknown)"
    )


def pieces(text: str) -> list[str]:
    """The beginning of a document, and if it is long, a piece of its middle."""
    first, middle = text[:PIECE_CHARACTERS], len(text) // 2
    if middle < PIECE_CHARACTERS:
        return [first]
    return [first, text[middle : middle + PIECE_CHARACTERS].lstrip()]


def reading(tokenizer: Tokenizer) -> Tokenizer:
    """Set a tokenizer to read text as a store's was read, and to decode if it lacks only that."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    parts = json.loads(tokenizer.to_str())
    if parts["decoder"] is None and '"ByteLevel"' in json.dumps(parts["pre_tokenizer"]):
        tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unknown_token(tokenizer: Tokenizer) -> int | None:
    """The id of the token for text that the vocabulary lacks; None if there is no such token."""
    model = json.loads(tokenizer.to_str())["model"]
    number: int | None = model.get("unk_id")
    word = model.get("unk_token")
    return number if word is None else tokenizer.token_to_id(word)


def _bytes_in_both(text: str, back: str) -> int:
    common = Counter(text) & Counter(back)
    return sum(count * len(character.encode()) for character, count in common.items())
