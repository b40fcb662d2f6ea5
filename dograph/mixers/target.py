"""The target of a run: which domains' losses it is to lower, and is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dograph.errors import UserError, nearest
from dograph.files.levels import levels_of, split_levels

EVEN = "even"
"""What the target of no value is called."""
MOST_NAMED = 3
"""Domains that a short text names."""
WORST = "worst"
"""The target that is always the domain with the largest loss."""
TargetValue = str | Mapping[str, float] | None
"""A target as a recipe writes it."""


@dataclass(frozen=True)
class Target:
    """Weights of the domains' losses, in a recipe the key ``target``.

    Use ``Target.parse``, which checks the value.

    Attributes:
        value: as in the recipe. None: even over the domains that are trained on; a name: that
            domain; weights by name: their mixture, of which domains left out have none; "worst":
            the domain with the largest loss, unseen ones included. A level's name stands for all
            domains below it, evenly.
        unseen: domains that are never trained on.

    >>> target = Target.parse({"web": 3, "code": 1})
    >>> target.loss({"books": 9.0, "code": 2.0, "web": 4.0})
    3.5
    >>> target.weights(("books", "code", "web")).tolist()
    [0.0, 0.25, 0.75]
    >>> Target.parse(None, unseen=["web"]).weights(("books", "code", "web")).tolist()
    [0.5, 0.5, 0.0]
    """

    value: str | dict[str, float] | None = None
    unseen: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: object, unseen: Sequence[str] = ()) -> Target:
        """Check a target as a recipe writes it; UserError for anything else."""
        if isinstance(value, Mapping):
            value = {name: _checked(name, weight) for name, weight in value.items()}
            if not sum(value.values()) > 0:
                raise UserError(f"target is {value}: give at least one domain a weight above 0")
            if math.isinf(sum(value.values())):
                raise UserError(f"target is {value}, whose sum is not finite: give smaller weights")
        elif value is not None and (not isinstance(value, str) or not value):
            remedy = "name a domain, map domains to weights, or write worst"
            raise UserError(f"target is {value!r}: {remedy}")
        return cls(value, tuple(unseen))

    @property
    def is_even(self) -> bool:
        """Whether all domains that are trained on count alike."""
        return self.value is None

    @property
    def is_worst(self) -> bool:
        """Whether the domain with the largest loss counts alone."""
        return self.value == WORST

    @property
    def mixture(self) -> dict[str, float]:
        """Named domains' weights above 0, of sum 1; empty for an even target and the worst."""
        if self.is_even or self.is_worst:
            return {}
        named = {self.value: 1.0} if isinstance(self.value, str) else self.value
        assert named is not None
        total = sum(named.values())
        return {name: weight / total for name, weight in named.items() if weight > 0}

    @property
    def label(self) -> str:
        """A short text: "even", "worst", "web", "code 0.25, web 0.75", or "7 domains"."""
        named = len(self.mixture)
        return self.description if named <= MOST_NAMED else f"{named} domains"

    @property
    def description(self) -> str:
        """A text that tells targets apart, whatever their number of domains."""
        if self.is_even:
            return EVEN
        if self.is_worst:
            return WORST
        names = sorted(self.mixture)
        if len(names) == 1 and names[0] not in (EVEN, WORST):
            return names[0]
        return ", ".join(f"{name} {self.mixture[name]:.4g}" for name in names)

    def by_domain(self, domains: Sequence[str]) -> Target:
        """The same target without names of levels.

        >>> Target.parse("web").by_domain(("books", "web/news", "web/wiki")).value
        {'web/news': 0.5, 'web/wiki': 0.5}
        """
        if not levels_of(domains) or not self.mixture:
            return self
        return Target(split_levels(self.mixture, domains, None, "target"), self.unseen)

    def names(self, domains: Sequence[str]) -> tuple[str, ...]:
        """The domains that can count, in the order of ``domains``."""
        if self.is_worst:
            return tuple(domains)
        if self.is_even:
            return tuple(name for name in domains if name not in self.unseen)
        counted = self.by_domain(domains).mixture
        return tuple(name for name in domains if name in counted)

    def weights(self, domains: Sequence[str], losses: Tensor | None = None) -> Tensor:
        """(S,) float64 weights of the domains' losses, on the simplex.

        Args:
            domains: the S domain names.
            losses: (S,) the domains' losses in nats, for the worst; without them its weights are
                even over all domains.
        """
        if self.is_worst and losses is not None:
            weights = torch.zeros(len(domains), dtype=torch.float64)
            weights[int(losses.argmax())] = 1
            return weights
        counted, names = self.by_domain(domains).mixture, self.names(domains)
        values = [counted.get(name, 1.0) if name in names else 0.0 for name in domains]
        weights = torch.tensor(values, dtype=torch.float64)
        return weights / weights.sum()

    def loss(self, losses: Mapping[str, float]) -> float:
        """The target's loss in nats, from all domains' losses by name; NaN where one of its is."""
        names = self.names(list(losses))
        if self.is_worst:
            return max(losses.values(), key=lambda loss: (math.isnan(loss), loss))
        weights = self.by_domain(list(losses)).mixture or dict.fromkeys(names, 1 / len(names))
        return math.fsum(weights[name] * losses[name] for name in names)

    def check(self, domains: Sequence[str]) -> None:
        """Raises UserError for a domain that the corpus does not have, by key and remedy."""
        named = {self.value: 1.0} if isinstance(self.value, str) else self.value or {}
        if self.is_worst and WORST in domains:
            raise UserError(
                "target is worst, which is also the name of a domain: write {worst: 1} for that "
                "domain, or rename it"
            )
        there = [*domains, *levels_of(domains)]
        check_names("target", [] if self.is_worst else list(named), there)
        self.by_domain(domains)


def check_names(key: str, names: Sequence[str], domains: Sequence[str]) -> None:
    """Raises UserError for the first of a recipe's domain names that the corpus does not have."""
    for name in names:
        if name not in domains:
            there = f"the corpus has {', '.join(domains)}"
            if not isinstance(name, str):  # YAML reads no and 1 as something else than text
                raise UserError(f"{key} names {name!r}, which is no text: quote it; {there}")
            hint = nearest(name, domains) or f"; {there}"
            raise UserError(f"{key} names {name!r}, not a domain of the corpus{hint}")


def _checked(name: object, weight: Any) -> float:
    if not isinstance(name, str):
        raise UserError(f"target.{name} is not a domain's name: quote it")
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 <= weight < math.inf:
        raise UserError(f"target.{name} is {weight!r}: give a finite number ≥ 0")
    return float(weight)
