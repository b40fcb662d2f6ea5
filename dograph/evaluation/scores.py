"""Scores of a checkpoint over domains: what there is of them, and how it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its 95 % interval, which are None where nothing says them."""

    value: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        """By name; what is not finite becomes null."""
        return {
            name: number if number is not None and math.isfinite(number) else None
            for name, number in vars(self).items()
        }


@dataclass(frozen=True)
class Score:
    """How well text is predicted.

    Attributes:
        loss: nats a token.
        perplexity: its exponential.
        bits_per_byte: bits for each byte of text, whatever the tokenizer.
    """

    loss: Interval
    perplexity: Interval
    bits_per_byte: Interval

    def as_json(self) -> dict[str, Any]:
        """By name."""
        return {name: interval.as_json() for name, interval in vars(self).items()}


@dataclass(frozen=True)
class DomainScore:
    """The score of one domain, and on how much text."""

    name: str
    sequences: int
    tokens: int
    bytes: int
    train_tokens: int
    score: Score

    def as_json(self) -> dict[str, Any]:
        """By name."""
        return {
            "sequences": self.sequences,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "train_tokens": self.train_tokens,
            **self.score.as_json(),
        }


@dataclass(frozen=True)
class Scores:
    """Scores of all domains together.

    Attributes:
        domains: in the store's order.
        mean: over domains, each counting alike.
        worst: over domains, of losses and of bits per byte each, which may be of two domains;
            its interval is that of a maximum, which resampling draws upwards.
        weighted: domains count by their train tokens in the store: text as it is there.
        worst_domain: the one with the highest loss, and so the highest perplexity.
        worst_bits_domain: the one with the most bits per byte.
    """

    domains: tuple[DomainScore, ...]
    mean: Score
    worst: Score
    weighted: Score
    worst_domain: str
    worst_bits_domain: str

    @property
    def losses(self) -> dict[str, float]:
        """Nats a token by domain."""
        return {domain.name: domain.score.loss.value for domain in self.domains}

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types; every worst value names its domain."""
        of_worst = {name: {"domain": self.worst_domain} for name in ("loss", "perplexity")}
        of_worst["bits_per_byte"] = {"domain": self.worst_bits_domain}
        worst = self.worst.as_json()
        return {
            "domains": {domain.name: domain.as_json() for domain in self.domains},
            "mean": self.mean.as_json(),
            "worst": {name: {**of_worst[name], **worst[name]} for name in worst},
            "weighted": self.weighted.as_json(),
        }
