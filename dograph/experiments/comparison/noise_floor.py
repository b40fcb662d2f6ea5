"""How small a difference a comparison can see, in sentences for its reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dograph.experiments.comparison.methods import Method, Paired

Pairs = Mapping[str, Paired]
"""Differences to the baseline by the methods' labels."""


def noise_notes(methods: Sequence[Method]) -> list[str]:
    """What seeds' noise hides, what ties leave open, and which claims are hardly above it.

    ``methods`` has the baseline first; the others' p-values and levels are adjusted.
    """
    base, *others = methods
    pairs = {method.label: method.paired for method in others if method.paired}
    if not pairs:
        return []
    return [_floor(base, pairs), *_open_ties(base, pairs), *_weak_claims(pairs)]


def is_weak(pair: Paired) -> bool:
    """Whether a win or a loss is smaller than what such studies find in four of five cases."""
    claimed = pair.verdict in ("win", "loss")
    return claimed and pair.detectable is not None and abs(pair.target.mean) < pair.detectable


def _floor(base: Method, pairs: Pairs) -> str:
    """The smallest detectable differences, beside the spread of the baseline's own repeats."""
    known = [(pair.detectable, label) for label, pair in pairs.items()]
    sizes = [(size, label) for size, label in known if size is not None]
    if sizes:
        ends = dict.fromkeys((min(sizes), max(sizes)))
        listed = " to ".join(f"{size:.3f} ({label})" for size, label in ends)
        text = f"Smallest true difference that four of five such studies would find: {listed} nats"
        if len(sizes) < len(pairs):
            text += f", {_unknown(pairs)} none"
    else:
        text = f"{_unknown(pairs).capitalize()} no difference can be told from noise"
    spread = base.target.spread
    if spread is not None:
        text += f"; {base.label} alone varies by {spread:.3f} between seeds (standard deviation)"
    return f"{text}."


def _unknown(pairs: Pairs) -> str:
    """Why some differences' noise is not known."""
    single = any(len(pair.target.values) == 1 for pair in pairs.values())
    return "with one seed" if single else "with differences that do not vary between seeds"


def _open_ties(base: Method, pairs: Pairs) -> list[str]:
    """By how much a tie may be worse than the baseline: what "not worse" can mean."""
    ties = {label: pair.target.bounds for label, pair in pairs.items() if pair.verdict == "tie"}
    open_ends = [f"{label} {ends[1]:.3f}" for label, ends in ties.items() if ends and ends[1] > 0]
    if not open_ends:
        return []
    listed = ", ".join(open_ends)
    return [f"A tie may still be worse than {base.label} by up to (95 %, in nats): {listed}."]


def _weak_claims(pairs: Pairs) -> list[str]:
    """Claims that most such studies would have missed, so that those that do not overstate."""
    weak = [f"{label} ({pair.verdict})" for label, pair in pairs.items() if is_weak(pair)]
    if not weak:
        return []
    return [
        f"Smaller than four of five such studies would find, so likely overstated: "
        f"{', '.join(weak)}."
    ]
