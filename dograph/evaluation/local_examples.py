"""Examples of language tasks, drawn from the validation documents of a domain."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from dograph.data.corpus.round_trip import reading
from dograph.data.corpus.store import Store
from dograph.data.domains import Documents

Example = dict[str, Any]
CHOICES = 4
"""Choices of a continuation, the true one among them: an accuracy of 0.25 by chance."""
LONGEST_CONTINUATION = 32
"""Tokens, at most a quarter of the context."""
LEAST_BEFORE = 16
"""Tokens before what is to be predicted, at most a quarter of the context."""
TRIES = 20
"""Draws for each example asked for."""
NO_WORDS = "no words are parted by blanks"
UNEQUAL = "the choices are not equally many tokens after the context"
TOO_LONG = "the text is more tokens than it was when it was stored"
BLANK = re.compile(r"[ \t\r\n]")
NEXT_WORD = re.compile(r"(?<=\S) \w+")
WORD_BEGINS = re.compile(r"(?<=\S)(?= \S)")


@dataclass(frozen=True)
class Drawn:
    """Examples of one task, and why there are no more."""

    examples: list[Example]
    reason: str


class DomainExamples:
    """Draws examples from one domain; the same seed draws the same.

    Only validation documents are used, each once before one is used again, at another place. An
    example has at most ``context`` tokens, ≥ 16.
    """

    def __init__(self, store: Store, domain: str, context: int, seed: int) -> None:
        self.documents = Documents(store, domain, "validation")
        self.context, self.name = context, f"{seed} {domain}"
        self.continuation = min(LONGEST_CONTINUATION, context // 4)
        self.least = min(LEAST_BEFORE, context // 4)
        self.tokenizer = reading(store.tokenizer())
        self.shortest = self.least + 2 * self.continuation
        ends = store.document_ends(domain, "validation")
        lengths = np.diff(ends, prepend=0) - 1  # less the end of text, as ``documents`` gives them
        self.eligible: list[int] = np.flatnonzero(lengths >= self.shortest).tolist()

    def cloze(self, count: int) -> Drawn:
        """Up to ``count`` next words (``target``, with the blank before it) after ``context``."""

        def one(draw: random.Random, document: int) -> Example | str:
            tokens = self.documents[document]
            end = draw.randint(self.least, len(tokens))
            text = self._text(tokens, max(0, end - self.context), end)
            words = list(NEXT_WORD.finditer(text))
            if not words:
                return NO_WORDS
            context, target = text[: words[-1].start()], words[-1].group()
            tokens_or_reason = self._tokens(context, target)
            if isinstance(tokens_or_reason, str):
                return tokens_or_reason
            return {"context": context, "target": target}

        return self._draw("cloze", count, one)

    def continuations(self, count: int) -> Drawn:
        """Up to ``count`` examples: ``context``, ``choices``, and the true one's index, ``label``.

        The other choices begin at other documents' words. All are equally many tokens long.
        """

        def one(draw: random.Random, document: int) -> Example | str:
            context, true = self._split(draw, document)
            others = [index for index in self.eligible if index != document]
            false = [self._split(draw, other)[1] for other in draw.sample(others, CHOICES - 1)]
            choices = [true, *false]
            if not context or not all(choices):
                return NO_WORDS
            if len(set(choices)) < CHOICES:
                return "the documents continue alike"
            for choice in choices:
                if (length := self._tokens(context, choice)) != self.continuation:
                    return length if isinstance(length, str) else UNEQUAL
            draw.shuffle(choices)
            return {"context": context, "choices": choices, "label": choices.index(true)}

        return self._draw("continuation", count, one)

    def _draw(
        self, kind: str, count: int, one: Callable[[random.Random, int], Example | str]
    ) -> Drawn:
        draw = random.Random(f"{self.name} {kind}")  # noqa: S311  (examples, no secrets)
        examples: dict[tuple[str, str], Example] = {}
        if len(self.eligible) < CHOICES:
            have, documents = len(self.eligible), len(self.documents)
            return Drawn(
                [],
                f"{have} of its {documents} validation documents have {self.shortest} tokens or "
                f"more, and {CHOICES} are needed",
            )
        reasons: Counter[str] = Counter()
        order = draw.sample(self.eligible, len(self.eligible))
        for document in islice(cycle(order), TRIES * count):
            example = one(draw, document)
            if isinstance(example, str):
                reasons[example] += 1
                continue
            answer = example.get("target") or example["choices"][example["label"]]
            key = (example["context"], answer)
            if key in examples:
                reasons["it was drawn before"] += 1
            examples.setdefault(key, {"document": document, **example})
            if len(examples) == count:
                break
        drawn = sum(reasons.values()) + len(examples)
        why = [f"{reason} ({times} of {drawn} draws)" for reason, times in reasons.most_common(1)]
        return Drawn(list(examples.values()), "".join(why))

    def _split(self, draw: random.Random, document: int) -> tuple[str, str]:
        """A text before a drawn word, and the tokens from there; both empty if no word begins."""
        tokens, length = self.documents[document], self.continuation
        place = draw.randint(self.least, len(tokens) - 2 * length)
        first = max(0, place + 2 * length - self.context)
        text = self._text(tokens, first, place + 2 * length)
        near = len(self._text(tokens, first, place))
        begins = [match.start() for match in WORD_BEGINS.finditer(text)]
        if not begins:
            return "", ""
        cut = min(begins, key=lambda begin: abs(begin - near))
        # By offsets: decoded tokens would lack the first blank, or have one more, where a tokenizer
        # adds a blank of its own.
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        ends = [end for _, end in offsets if end > cut][:length]
        return text[:cut], text[cut : ends[-1]] if ends else ""

    def _text(self, tokens: Any, first: int, end: int) -> str:
        """Decodes tokens, without the words that ``first`` and ``end`` cut within a document."""
        text = self.tokenizer.decode(tokens[first:end].tolist(), skip_special_tokens=False)
        blanks = [match.start() for match in BLANK.finditer(text)]
        begin = (blanks[0] if blanks else len(text)) if first > 0 else 0
        stop = (blanks[-1] if blanks else 0) if end < len(tokens) else len(text)
        return text[begin:stop].strip()

    def _tokens(self, context: str, continuation: str) -> int | str:
        """Number of a continuation's tokens; or why it cannot be asked for after the context."""
        if not context or not continuation:
            return NO_WORDS
        if "\ufffd" in context + continuation:
            return "the tokens end within a character"
        before = self.tokenizer.encode(context, add_special_tokens=False).ids
        whole = self.tokenizer.encode(context + continuation, add_special_tokens=False).ids
        if whole[: len(before)] != before or len(whole) == len(before):
            return "the tokens before a blank depend on what follows"
        return len(whole) - len(before) if len(whole) <= self.context else TOO_LONG
