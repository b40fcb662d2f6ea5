"""The sections ``swarm`` and ``fit`` of a stage that trains fixed mixtures and fits a law."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dograph.errors import UserError, check_range, nearest
from dograph.experiments.recipe.compose import COMMAND_LINE, Composition
from dograph.experiments.recipe.section import check_section

if TYPE_CHECKING:
    from dograph.experiments.laws.fit import FitSettings

DESIGNS = ("regmix", "oracle")
"""Rules by which mixtures are chosen: RegMix's, or that of an oracle's first round."""
CORNER = 0.85
"""Weight of a corner's domain; the rest is even (ours)."""
FEWEST, EACH = 32, 6
"""Mixtures by the rule: so many, or so many for each domain, whichever is more."""
NO_KEYS = {"sizes"}
"""What a fit of runs knows by itself."""


@dataclass(frozen=True)
class SwarmSettings:
    """Which fixed mixtures are trained, and how many at once."""

    mixtures: int | None = None
    """mixtures by the rule, ≥ 2, or 0: corners alone. None: 32, or six a domain if more."""
    design: str = "regmix"
    """one of ``DESIGNS``."""
    corners: float = CORNER
    """weight of the domain that each corner is of, in [0, 1]; 0: no corners."""
    repeats: int = 3
    """runs of the even mixture, ≥ 0; their spread is the noise floor."""
    curves: bool = False
    """validate as often as the recipe says, for a law of steps, not only at the end."""
    processes: int = 1
    """runs at once."""
    threads: int | None = None
    """threads of each run. None: as in a sweep."""

    def __post_init__(self) -> None:
        fewest = 0 if self.corners else 2
        for key, value, least in (
            ("mixtures", self.mixtures, fewest),
            ("repeats", self.repeats, 0),
            ("processes", self.processes, 1),
            ("threads", self.threads, 1),
        ):
            if value is not None:
                check_range(f"{COMMAND_LINE}: {key}", value, at_least=least)
        if self.mixtures == 1:
            raise UserError(f"{COMMAND_LINE}: mixtures is 1: it must be ≥ 2, or 0: corners alone")
        check_range(f"{COMMAND_LINE}: corners", self.corners, at_least=0, at_most=1)
        if self.design not in DESIGNS:
            hint = nearest(self.design, DESIGNS) or f": choose one of {', '.join(DESIGNS)}"
            raise UserError(f"{COMMAND_LINE}: design is {self.design!r}{hint}")

    def by_rule(self, domains: int) -> int:
        """How many mixtures of so many domains the rule chooses, without corners."""
        return max(FEWEST, EACH * domains) if self.mixtures is None else self.mixtures


def read_swarm(composition: Composition, seed: int) -> tuple[SwarmSettings, FitSettings] | None:
    """The settings of a stage's swarm and of the law that is fitted to it; None without a swarm.

    Args:
        composition: the stage's values.
        seed: of the fit's folds and draws, unless it is given.
    """
    if "swarm" not in composition.values:
        return None
    from dograph.experiments.laws.fit import FitSettings

    swarm = _read(composition, "swarm", SwarmSettings, set())
    given = composition.values.get("fit") or {}
    more = {} if "seed" in given else {"seed": seed}
    fit = _read(composition, "fit", FitSettings, NO_KEYS, **more)
    if fit.law == "mixmin" and swarm.corners < 1:
        remedy = "law mixmin reads a model of each domain alone: set swarm.corners to 1"
        raise composition.error("swarm.corners", f"is {swarm.corners}: {remedy}")
    if fit.law == "mixmin" and composition.values.get("limits"):
        remedy = "law mixmin reads a model of each domain alone: set limits in a later stage only"
        raise composition.error("limits", f"are set: {remedy}")
    return swarm, fit


def _read(composition: Composition, key: str, builds: type, skip: set[str], **more: Any) -> Any:
    given = composition.values.get(key)
    section = check_section(composition, key, builds, {} if given is None else given, skip)
    with errors_by_key(composition, key):
        return builds(**{**section.as_dict(), **more})


@contextmanager
def errors_by_key(composition: Composition, section: str) -> Iterator[None]:
    """Errors that name the options of a command name the keys of a recipe's section instead."""

    def key(option: re.Match[str]) -> str:
        return f"{section}.{option[1].replace('-', '_')}"

    try:
        yield
    except UserError as error:
        text = str(error).replace(f"{COMMAND_LINE}: ", f"{section}.")
        text = re.sub(r"--([a-z][a-z-]*)", key, text)
        named = text.split(" ", 1)[0].rstrip(":")
        origin = composition.origin(named if named.startswith(f"{section}.") else section)
        raise UserError(f"{origin}: {text}") from error
