"""How much of each domain a run reads if its weights stay as they begin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dograph.data.data_mixer import DataMixer

MOST_NAMED = 3
"""Domains that the sentence names."""


@dataclass(frozen=True)
class DomainForecast:
    """What there is of a domain, and what a run reads of it at its first weights.

    Attributes:
        available: tokens of an epoch: of whole sequences that are trained on, with the cap.
        weight: by which the run begins to draw. None: an earlier stage finds it.
        tokens: that the run reads. Stratified draws keep each domain within one sequence of it.
        epochs: passes through the domain.
        repeats_at: optimiser step from which the domain repeats; None if it never does.
        most: tokens that ``limits.epochs`` lets the run read of it; None where no limit is its own.
    """

    name: str
    available: int
    weight: float | None = None
    tokens: int | None = None
    epochs: float | None = None
    repeats_at: int | None = None
    most: int | None = None


def forecast_domains(
    data: DataMixer, steps: int, step_sequences: int, known: bool = True
) -> tuple[DomainForecast, ...]:
    """Each domain's forecast, in the order of the weights.

    Args:
        data: set up.
        steps: optimiser steps of the run.
        step_sequences: sequences of a step on all devices.
        known: whether the weights are; else only what there is.
    """
    sampler, forecasts, caps = data.sampler, list[DomainForecast](), epoch_caps(data)
    for name, order, weight in zip(
        data.domains, sampler.orders, sampler.weights.tolist(), strict=True
    ):
        available = order.length * data.context
        if not known:
            forecasts.append(DomainForecast(name, available, most=caps.get(name)))
            continue
        a_step = weight * step_sequences
        sequences = round(a_step * steps)
        repeats = sequences > order.length
        forecasts.append(
            DomainForecast(
                name,
                available,
                weight,
                sequences * data.context,
                sequences / order.length,
                min(math.ceil((order.length + 1) / a_step), steps) if repeats else None,
                caps.get(name),
            )
        )
    return tuple(forecasts)


def epoch_caps(data: DataMixer) -> dict[str, int]:
    """Tokens that ``limits.epochs`` allows of a domain in the run, by its name; not of groups."""
    limits = data.mixer.limits
    caps = {} if limits is None else {cap.name: cap.sequences for cap in limits.caps}
    return {name: int(caps[name]) * data.context for name in data.domains if name in caps}


def repetition(domains: Sequence[DomainForecast]) -> str:
    """A sentence on what the domains hold and which of them repeat at the first weights."""
    held = f"{len(domains)} domains of {sum(each.available for each in domains):,} tokens"
    again = sorted(
        (each for each in domains if each.repeats_at is not None),
        key=lambda each: each.repeats_at or 0,
    )
    if not again:
        most = max(domains, key=lambda each: each.epochs or 0)
        return f"{held}; at the first weights none repeats ({most.name}: {most.epochs:.2f} epochs)"
    named = [
        f"{each.name} from step {each.repeats_at:,} ({each.epochs:.2f} epochs)"
        for each in again[:MOST_NAMED]
    ]
    more = f" and {len(again) - MOST_NAMED} more" if len(again) > MOST_NAMED else ""
    return f"{held}; at the first weights these repeat: {', '.join(named)}{more}"
