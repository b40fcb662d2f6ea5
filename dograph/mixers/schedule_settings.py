"""Settings of ``DoGraphSchedule``, which a recipe nests: nodes, probe and problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dograph.errors import UserError, check_range
from dograph.graph.schedule_solver import Geometry


@dataclass(frozen=True)
class NodeSettings:
    """How the graph's nodes are made: clusters of recent gradient sketches.

    Attributes:
        clusters: K ≥ 1.
        observed: steps before an update whose sequences are sketched, 1 … ``interval``.
        window: sequences whose sketches are clustered, the newest of all that were sketched. Many
            smooth P; few keep to the model's gradients of today.
        neighbours: edges of each node in the graph.
    """

    clusters: int = 11
    observed: int = 4
    window: int = 512
    neighbours: int = 3

    def __post_init__(self) -> None:
        for key in ("clusters", "observed", "neighbours"):
            check_range(f"mixer.init_args.nodes.{key}", getattr(self, key), at_least=1)
        if self.window < self.clusters:
            raise UserError(
                f"mixer.init_args.nodes.clusters is {self.clusters}, but window holds "
                f"{self.window} sequences: lower clusters or raise window"
            )


@dataclass(frozen=True)
class ProbeSettings:
    """How the target's gradient is measured: on sequences that are never trained on.

    Attributes:
        held_out: sequences of each source kept from training.
        per_update: of these, of each source, that one probe takes.
        memory: in [0, 1), weight of earlier probes in the target's gradient.
    """

    held_out: int = 32
    per_update: int = 4
    memory: float = 0.5

    def __post_init__(self) -> None:
        for key in ("held_out", "per_update"):
            check_range(f"mixer.init_args.probe.{key}", getattr(self, key), at_least=1)
        check_range("mixer.init_args.probe.memory", self.memory, at_least=0, below=1)


@dataclass(frozen=True)
class ProblemSettings:
    """Scalars and constraints of the problem that ``ScheduleSolver`` solves.

    Attributes:
        kappa: κ ≥ 0, curvature.
        laplacian: λ ≥ 0, how much neighbours move together.
        max_difference: δ ≥ 0. None: no such constraint.
        prior_pull: ν ≥ 0.
        proximity: μ > 0; large values take small steps.
        geometry: of the step: "euclidean" or "entropic".
        floor: ε in [0, 1).
        adapt: learn ln κ, ln λ, ln μ by one-step look-ahead (``LookAhead``).
    """

    kappa: float = 0.5
    laplacian: float = 0.1
    max_difference: float | None = None
    prior_pull: float = 0.2
    proximity: float = 4.0
    geometry: Geometry = "euclidean"
    floor: float = 0.2
    adapt: bool = False

    def __post_init__(self) -> None:
        for key in ("kappa", "laplacian", "prior_pull", "max_difference"):
            value = getattr(self, key)
            if value is not None:
                check_range(f"mixer.init_args.problem.{key}", value, at_least=0, below=math.inf)
        check_range("mixer.init_args.problem.proximity", self.proximity, above=0, below=math.inf)
        check_range("mixer.init_args.problem.floor", self.floor, at_least=0, below=1)
        if self.geometry not in ("euclidean", "entropic"):
            raise UserError(
                f"mixer.init_args.problem.geometry is {self.geometry!r}: it is 'euclidean' or "
                "'entropic'"
            )

    @property
    def start(self) -> dict[str, float]:
        """The scalars that ``adapt`` learns, by name."""
        return {"kappa": self.kappa, "laplacian": self.laplacian, "proximity": self.proximity}

    @property
    def fixed(self) -> dict[str, float]:
        """The others, as the solver calls them."""
        delta = 1.0 if self.max_difference is None else self.max_difference
        return {"nu": self.prior_pull, "delta": delta}


NODES, PROBE, PROBLEM = NodeSettings(), ProbeSettings(), ProblemSettings()
