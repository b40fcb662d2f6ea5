"""Derived domains: text made from another domain's, which teaches little or nothing new.

They show what a mixture does with sources that are of no use, or that repeat each other.
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from dograph.errors import UserError, nearest

How = Literal["shuffled_words", "base64", "near_copy"]
DROPPED = 0.02
"""Share of the words that a near copy lacks."""
LONGEST = 40
"""Mean length of words, in characters, from which on a text has no blanks to tell words by."""
_WORD = re.compile(r"\S+\s*")


@dataclass(frozen=True)
class Derivation:
    """How a derived domain is made, and of which domain."""

    origin: str
    how: How

    def __str__(self) -> str:
        return f"{self.how} of {self.origin}"

    def apply(self, text: str, seed: bytes) -> str:
        """Derive a document from a document; equal texts and seeds give equal documents.

        ``shuffled_words``: its words in a random order, one space between two. ``base64``: its
        UTF-8 bytes in base64, in lines of 76 characters. ``near_copy``: the text without 2 % of its
        words, drawn at random.
        """
        if self.how == "base64":
            return base64.encodebytes(text.encode()).decode()
        draw = random.Random(seed)  # noqa: S311  (no secret)
        if self.how == "shuffled_words":
            words = text.split()
            draw.shuffle(words)
            return " ".join(words)
        copy = _WORD.sub(lambda word: "" if draw.random() < DROPPED else word[0], text)
        return copy if copy.strip() else text


class DerivedWords:
    """Tells whether derivations by words found words in a text: not every script has blanks."""

    def __init__(self) -> None:
        self.characters = self.words = self.documents = self.unchanged = 0

    def add(self, text: str, derived: str) -> None:
        """Counts a document and what was made of it."""
        self.characters += len(text)
        self.words += len(text.split())
        self.documents += 1
        self.unchanged += derived == text

    def check(self, name: str, made: Derivation) -> None:
        """Raises UserError where the derived domain ``name`` would be its origin again."""
        if made.how == "base64" or self.characters <= LONGEST * self.words:
            return
        if made.how == "shuffled_words" or self.unchanged == self.documents:
            raise UserError(
                f"corpus.derived.{name}.how is {made.how}, but domain '{made.origin}' has "
                f"{self.words:,} words, told by blanks, in {self.documents:,} documents of "
                f"{self.characters:,} characters, so that its text would hardly change: derive "
                "from another domain, or by base64"
            )


def read_derivations(given: Mapping[str, Mapping[str, str]]) -> dict[str, Derivation]:
    """The setting ``corpus.derived`` by domain, sorted: ``{NAME: {from: DOMAIN, how: HOW}}``.

    Raises:
        UserError: naming the key that is missing, unknown or wrong.
    """
    derivations = {}
    for name in sorted(given):
        key, values = f"corpus.derived.{name}", given[name]
        for part in ("from", "how"):
            if part not in values:
                raise UserError(f"{key} lacks {part!r}: write {{from: DOMAIN, how: HOW}}")
        if unknown := sorted(values.keys() - {"from", "how"}):
            raise UserError(f"{key}.{unknown[0]} is an unknown key: write {{from: …, how: …}}")
        how, known = values["how"], get_args(How)
        if how not in known:
            choices = " or ".join(known)
            raise UserError(f"{key}.how is {how!r}: it must be {choices}{nearest(how, known)}")
        derivations[name] = Derivation(values["from"], cast(How, how))
    return derivations
