"""Scores of a checkpoint over domains, with bootstrap intervals over sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dograph.evaluation.held_out import HeldOut

Values = npt.NDArray[np.float64]
LIMITS = (2.5, 97.5)
"""Percentiles of the 95 % intervals."""


@dataclass(frozen=True)
class Estimate:
    """A value and the limits of its 95 % interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """By name; what is not finite becomes null."""
        return {
            name: number if math.isfinite(number) else None for name, number in vars(self).items()
        }


@dataclass(frozen=True)
class Score:
    """How well text is predicted.

    Attributes:
        loss: nats a token.
        perplexity: its exponential.
        bits_per_byte: bits for each byte of text, whatever the tokenizer.
    """

    loss: Estimate
    perplexity: Estimate
    bits_per_byte: Estimate

    def as_json(self) -> dict[str, Any]:
        """By name."""
        return {name: estimate.as_json() for name, estimate in vars(self).items()}


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
        worst: over domains, of losses and of bits per byte each; its interval is that of a
            maximum, which resampling draws upwards.
        weighted: domains count by their train tokens in the store: text as it is there.
        worst_domain: the one with the highest loss.
    """

    domains: tuple[DomainScore, ...]
    mean: Score
    worst: Score
    weighted: Score
    worst_domain: str

    @property
    def losses(self) -> dict[str, float]:
        """Nats a token by domain."""
        return {domain.name: domain.score.loss.value for domain in self.domains}

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {
            "domains": {domain.name: domain.as_json() for domain in self.domains},
            "mean": self.mean.as_json(),
            "worst": {"domain": self.worst_domain, **self.worst.as_json()},
            "weighted": self.weighted.as_json(),
        }


def scores(held_out: Sequence[HeldOut], resamples: int = 1000, seed: int = 0) -> Scores:
    """Scores with 95 % percentile-bootstrap intervals.

    Sequences are drawn again with replacement within each domain; the scores over domains come
    from the domains' draws together.

    Args:
        held_out: losses of all domains.
        resamples: ≥ 1.
        seed: of the draws.
    """
    drawn = [_ratios(domain, resamples, [seed, i]) for i, domain in enumerate(held_out)]
    losses, sizes = (np.stack(values, axis=1) for values in zip(*drawn, strict=True))
    bits = losses / (math.log(2) * sizes)
    weights = np.array([domain.train_tokens for domain in held_out], dtype=np.float64)
    weights /= weights.sum()
    weighted = losses @ weights
    domains = tuple(
        DomainScore(
            domain.domain,
            len(domain.nats),
            len(domain.nats) * domain.tokens,
            int(domain.bytes.sum()),
            domain.train_tokens,
            _score(losses[:, index], bits[:, index]),
        )
        for index, domain in enumerate(held_out)
    )
    return Scores(
        domains=domains,
        mean=_score(losses.mean(axis=1), bits.mean(axis=1)),
        worst=_score(losses.max(axis=1), bits.max(axis=1)),
        weighted=_score(weighted, weighted / (math.log(2) * (sizes @ weights))),
        worst_domain=held_out[int(losses[0].argmax())].domain,
    )


def _ratios(domain: HeldOut, resamples: int, seed: Sequence[int]) -> tuple[Values, Values]:
    """(1 + resamples,) nats a token and bytes a token; the first as measured, the others drawn."""
    count = len(domain.nats)
    draw = np.random.default_rng(seed)
    times = draw.multinomial(count, np.full(count, 1 / count), size=resamples)
    times = np.concatenate([np.ones((1, count), dtype=times.dtype), times])
    tokens = count * domain.tokens
    return times @ domain.nats / tokens, times @ domain.bytes / tokens


def _score(losses: Values, bits: Values) -> Score:
    with np.errstate(over="ignore"):
        return Score(_estimate(losses), _estimate(np.exp(losses)), _estimate(bits))


def _estimate(values: Values) -> Estimate:
    """The first value with the percentiles of the others."""
    low, high = np.percentile(values[1:], LIMITS)
    return Estimate(float(values[0]), float(low), float(high))
