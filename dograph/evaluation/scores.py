"""Scores of a checkpoint over domains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its 95 % interval; None if they are unknown."""

    value: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        """By name; numbers that are not finite become null."""
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
    """The score of one domain and how much text it is of."""

    name: str
    sequences: int
    tokens: int
    bytes: int
    train_tokens: int
    score: Score

    def as_json(self) -> dict[str, Any]:
        """By name."""
        counts = ("sequences", "tokens", "bytes", "train_tokens")
        return {**{key: getattr(self, key) for key in counts}, **self.score.as_json()}


@dataclass(frozen=True)
class Scores:
    """Scores of all domains together.

    Attributes:
        domains: in the store's order.
        mean: over domains, each counting alike.
        worst: highest loss and most bits per byte, perhaps of two domains; its interval is that
            of a maximum, which resampling biases upwards.
        weighted: mean by the domains' train tokens in the store.
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
