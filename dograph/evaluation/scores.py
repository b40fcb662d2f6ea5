"""Scores of a checkpoint over domains."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any


def finite_json(value: Any) -> Any:
    """A value in JSON's types; numbers in it that are not finite become null."""
    if isinstance(value, dict):
        return {key: finite_json(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its 95 % interval; None if they are unknown."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Score:
    """How well text is predicted: nats a token, their exponential, and bits per byte of text.

    Bits per byte compare across tokenizers. They are None where the tokenizer loses text.
    """

    loss: Interval
    perplexity: Interval
    bits_per_byte: Interval | None


@dataclass(frozen=True)
class DomainScore:
    """The score of one domain, and how much text it is of."""

    name: str
    sequences: int
    tokens: int
    bytes: int | None
    train_tokens: int
    score: Score


@dataclass(frozen=True)
class Scores:
    """Scores of all domains together.

    Attributes:
        domains: in the store's order.
        mean: over domains, counting alike.
        worst: highest loss and most bits per byte, perhaps of two domains; its interval is that
            of a maximum, which resampling biases upwards.
        weighted: mean by the domains' train tokens in the store.
        worst_domain: the one with the highest loss, and so the highest perplexity.
        worst_bits_domain: the one with the most bits per byte; None where these are.
        target: of the run's target, and ``target_label`` its name; None where it is not known.
    """

    domains: tuple[DomainScore, ...]
    mean: Score
    worst: Score
    weighted: Score
    worst_domain: str
    worst_bits_domain: str | None
    target: Score | None = None
    target_label: str | None = None

    @property
    def losses(self) -> dict[str, float]:
        """Nats a token by domain."""
        return {domain.name: domain.score.loss.value for domain in self.domains}

    def without_bits(self) -> Scores:
        """The scores without bits per byte and bytes."""
        overall: dict[str, Any] = {
            name: replace(getattr(self, name), bits_per_byte=None)
            for name in ("mean", "worst", "weighted", "target")
            if getattr(self, name) is not None
        }
        domains = tuple(
            replace(domain, bytes=None, score=replace(domain.score, bits_per_byte=None))
            for domain in self.domains
        )
        return replace(self, domains=domains, worst_bits_domain=None, **overall)

    def as_json(self) -> dict[str, Any]:
        """In JSON's types; every worst value names its domain."""
        content = asdict(self)
        for domain in content["domains"]:
            domain.update(domain.pop("score"))
        content["domains"] = {domain.pop("name"): domain for domain in content["domains"]}
        worst, worst_bits = content.pop("worst_domain"), content.pop("worst_bits_domain")
        for name, interval in content["worst"].items():
            if interval is not None:
                interval["domain"] = worst_bits if name == "bits_per_byte" else worst
        result: dict[str, Any] = finite_json(content)
        return result
