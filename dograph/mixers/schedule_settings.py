"""Settings of ``DoGraphSchedule``, which a recipe nests: the problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dograph.errors import UserError, check_range


@dataclass(frozen=True)
class ProblemSettings:
    """Scalars and constraints of the problem that ``ScheduleSolver`` solves.

    Attributes:
        kappa: κ ≥ 0, curvature: 0 draws the most aligned source alone, 1 matches the target's
            gradient.
        prior_pull: ν ≥ 0.
        least_spread: ≥ 0, spread of influences over the sources, in units of the prior's own
            gradient, that tells nothing: more of it than sampling errors does the kernel not see.
        laplacian: λ ≥ 0, how much neighbours move together.
        max_difference: δ ≥ 0. None: no such constraint.
        neighbours: edges of each node in the graph, ≥ 1.
        floor: ε in [0, 1): every source keeps this share of its prior weight.
        target_floor: in [0, 1): a source that counts in the target keeps this share of its prior
            weight, or of its weight in the target, whichever is less; any domain may become the
            worst.
        repetition: R > 0, repetitions after which a source has lost 63 % of its influence;
            15.4 fits the loss of repeated data (arXiv 2305.16264).
        worst_within: nats > 0: domains whose loss is so much below the worst count 63 % less,
            where the target is the worst.
    """

    kappa: float = 0.3
    prior_pull: float = 0.1
    least_spread: float = 0.08
    laplacian: float = 0.0
    max_difference: float | None = None
    neighbours: int = 3
    floor: float = 0.1
    target_floor: float = 0.5
    repetition: float = 15.4
    worst_within: float = 0.2

    def __post_init__(self) -> None:
        for key in ("kappa", "laplacian", "prior_pull", "max_difference", "least_spread"):
            value = getattr(self, key)
            if value is not None:
                check_range(f"mixer.init_args.problem.{key}", value, at_least=0, below=math.inf)
        for key in ("repetition", "worst_within"):
            check_range(f"mixer.init_args.problem.{key}", getattr(self, key), above=0)
        check_range("mixer.init_args.problem.target_floor", self.target_floor, at_least=0, below=1)
        check_range("mixer.init_args.problem.neighbours", self.neighbours, at_least=1)
        check_range("mixer.init_args.problem.floor", self.floor, at_least=0, below=1)

    def check_unused(self, own: str) -> None:
        """Raises UserError for a setting of the problem in whose place one's own is solved."""
        for name in ("prior_pull", "laplacian", "max_difference"):
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise UserError(
                    f"mixer.init_args.problem.{name} is {value}, but {own} is solved in place of "
                    "the problem that it belongs to: state it there, and leave it out here"
                )

    @property
    def scalars(self) -> dict[str, float]:
        """The scalars, as the solver calls them."""
        delta = 1.0 if self.max_difference is None else self.max_difference
        return {
            "kappa": self.kappa,
            "lam": self.laplacian,
            "nu": self.prior_pull,
            "delta": delta,
        }


PROBLEM = ProblemSettings()
