"""Limits on what is drawn: shares, groups, ratios and epochs, in a recipe the key ``limits``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dograph.errors import UserError, check_choice
from dograph.files.levels import levels_of, members
from dograph.graph.bounds import Bound, conflict
from dograph.graph.polytope import Distance
from dograph.graph.problem import Array
from dograph.mixers.run_limits import EpochCap, RunLimits, refuse_conflict
from dograph.mixers.target import check_names


@dataclass(frozen=True)
class Limits:
    """What a mixture must keep to, whatever a mixer finds.

    Attributes:
        epochs: passes through a domain's training text in the whole run, ≥ 0: one number for every
            domain, or numbers by name of a domain or group.
        at_least: smallest share of the tokens, by name of a domain or group.
        at_most: largest share, by name of a domain or group.
        groups: names of domains by the group's name.
        ratio: by two names, how many times the second one's weight the first one's may be: a
            number, or the least and the most of it.
        projection: what of the allowed mixtures is drawn in place of one that is not: the nearest
            by "kl", which keeps the ratios of weights that no limit holds, or by "euclidean".

    >>> limits = Limits(at_most={"books": 0.5}, ratio={"en": {"de": [2, 4]}})
    >>> [bound.label for bound in limits.bounds(["books", "de", "en"])]
    ['at_most.books 0.5', 'ratio.en.de 2', 'ratio.en.de 4']
    """

    epochs: float | dict[str, float] | None = None
    at_least: dict[str, float] = field(default_factory=dict)
    at_most: dict[str, float] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    ratio: dict[str, dict[str, float | list[float]]] = field(default_factory=dict)
    projection: Distance = "kl"

    def __post_init__(self) -> None:
        check_choice("limits.projection", self.projection, ("kl", "euclidean"))
        for key in ("at_least", "at_most"):
            for name, share in getattr(self, key).items():
                _check_number(f"limits.{key}.{name}", share, 1, "a share from 0 to 1")
        given = self.epochs if isinstance(self.epochs, Mapping) else {"": self.epochs}
        for name, epochs in given.items():
            if epochs is not None:
                _check_number(f"limits.epochs{name and '.'}{name}", epochs, math.inf, "epochs ≥ 0")
        for first, others in self.ratio.items():
            for second, given_ratio in others.items():
                _range(f"limits.ratio.{first}.{second}", given_ratio)
        for name, named in self.groups.items():
            if not named or len(set(named)) < len(named):
                raise UserError(f"limits.groups.{name} is {named}: name each domain of it once")

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return self.epochs is not None or bool(self.at_least or self.at_most or self.ratio)

    def bounds(self, domains: Sequence[str]) -> list[Bound]:
        """The limits on shares and ratios, which hold at every step, over (S,) weights."""
        least = [
            Bound(f"at_least.{name} {share:g}", self._members(name, domains), low=share)
            for name, share in self.at_least.items()
        ]
        most = [
            Bound(f"at_most.{name} {share:g}", self._members(name, domains), high=share)
            for name, share in self.at_most.items()
        ]
        return [*least, *most, *self._ratios(domains)]

    def _ratios(self, domains: Sequence[str]) -> Iterator[Bound]:
        for first, others in self.ratio.items():
            for second, given in others.items():
                key = f"ratio.{first}.{second}"
                low, high = _range(f"limits.{key}", given)
                a, b = self._members(first, domains), self._members(second, domains)
                if low > 0:
                    yield Bound(f"{key} {low:g}", a - low * b, low=0.0)
                yield Bound(f"{key} {high:g}", a - high * b, high=0.0)

    def epochs_of(self, domains: Sequence[str], drawn: Sequence[bool]) -> dict[str, float]:
        """Epochs by name of a domain or group."""
        if self.epochs is None:
            return {}
        if isinstance(self.epochs, Mapping):
            return dict(self.epochs)
        of_each = float(self.epochs)
        return {name: of_each for name, is_drawn in zip(domains, drawn, strict=True) if is_drawn}

    def check(self, domains: Sequence[str], unseen: Sequence[str] = ()) -> None:
        """Raises UserError for an unknown name, and for shares that no mixture keeps together."""
        known = [*domains, *levels_of(domains)]
        for name, grouped in self.groups.items():
            check_names(f"limits.groups.{name}", grouped, known)
            if name in known:
                what = "domain" if name in domains else "level"
                raise UserError(f"limits.groups.{name} has the name of a {what}: rename the group")
        there = [*known, *self.groups]
        epochs = self.epochs if isinstance(self.epochs, Mapping) else {}
        for key, named in (
            *(("at_least", self.at_least), ("at_most", self.at_most), ("epochs", epochs)),
            ("ratio", {**self.ratio, **{b: 0 for others in self.ratio.values() for b in others}}),
        ):
            check_names(f"limits.{key}", list(named), there)
        self._check_drawn(domains, unseen)
        drawn = np.array([name not in unseen for name in domains])
        refuse_conflict(conflict(self.bounds(domains), drawn), (), 0)

    def _check_drawn(self, domains: Sequence[str], unseen: Sequence[str]) -> None:
        """Raises UserError for a share or ratio of what is never drawn.

        A ratio to it would keep its other side from being drawn, too.
        """
        asked = [(f"at_least.{name}", name) for name, share in self.at_least.items() if share > 0]
        for first, others in self.ratio.items():
            asked += [(f"ratio.{first}.{b}", name) for b in others for name in (first, b)]
        for key, name in asked:
            if set(self._named(name, domains)) <= set(unseen):
                raise UserError(
                    f"limits.{key} asks for {name}, which is never drawn: leave the limit out, or "
                    "the domain in data.unseen"
                )

    def _members(self, name: str, domains: Sequence[str]) -> Array:
        below = set(self._named(name, domains))
        return np.array([float(domain in below) for domain in domains])

    def _named(self, name: str, domains: Sequence[str]) -> list[str]:
        """The domains of a domain's, level's or group's name."""
        return [d for each in self.groups.get(name, [name]) for d in members(each, domains)]

    def of_run(
        self,
        domains: Sequence[str],
        drawn: Sequence[bool],
        sequences: Sequence[int],
        run_sequences: int,
    ) -> RunLimits:
        """The limits of a run over a corpus.

        Args:
            domains: the S names.
            drawn: (S,) False for domains that are never drawn.
            sequences: (S,) of each domain's training text.
            run_sequences: that the run draws, all in all; 0 where its length is not known.

        Raises:
            UserError: where no mixture keeps them, by a smallest set that conflicts; and for
                epochs of a run of no known length.
        """
        epochs = self.epochs_of(domains, drawn)
        if epochs and not run_sequences:
            raise UserError("limits.epochs needs a run's length: set trainer.max_steps")
        there = np.array(sequences, dtype=float)
        caps = []
        for name, passes in epochs.items():
            capped = self._members(name, domains)
            caps.append(EpochCap(name, capped, passes, float(passes * (capped @ there))))
        run = RunLimits(
            tuple(self.bounds(domains)),
            tuple(caps),
            np.array(drawn, dtype=bool),
            run_sequences,
            self.projection,
        )
        run.check()
        return run


def _check_number(key: str, value: Any, most: float, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise UserError(f"{key} is {value!r}: give {what}")


def _range(key: str, given: float | list[float]) -> tuple[float, float]:
    """(least, most) of a ratio."""
    values = given if isinstance(given, list) else [given, given]
    what = "a number ≥ 0, or the least and the most of it"
    if len(values) != 2 or not all(isinstance(value, int | float) for value in values):
        raise UserError(f"{key} is {given!r}: give {what}")
    low, high = float(values[0]), float(values[1])
    if not 0 <= low <= high < math.inf:
        raise UserError(f"{key} is {given!r}: give {what}")
    return low, high
