"""DoGraph as a sampling schedule: the graph decides what is drawn (ours)."""

from __future__ import annotations

import logging
import math
from collections.abc import Set
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from dograph.errors import UserError
from dograph.graph.clusters import effective_number, mutual_information
from dograph.graph.domain_graph import DomainGraph, affinity, domain_graph, edge_rows
from dograph.graph.minimise import Solution
from dograph.graph.schedule_solver import Geometry, ScheduleProblem, ScheduleSolver
from dograph.graph.threads import one_thread
from dograph.graph.tracking import TrackedClusters
from dograph.graph.window import SketchWindow, contingency, mean_by_domain
from dograph.mixers.base import BaseMixer, weights_by_name
from dograph.mixers.dograph import DoGraph
from dograph.mixers.look_ahead import LookAhead
from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate
from dograph.signals.batch_signals import BatchSignals, Signal

logger = logging.getLogger(__name__)


class DoGraphSchedule(BaseMixer):
    """Draws what its graph of gradient clusters expects to lower the target's loss.

    Every ``interval`` steps, from a window of recent sketches: K clusters that keep their identity,
    their share in each source ``P[c|s]``, their mean gradients M, and the gradient t of a target,
    probed on held-out sequences. The new sampling weights α minimise, with ``w = P α``,

        − ⟨b, w⟩ + (κ/2)‖R w‖² + (λ/2) w̃ᵀLw̃ + (ν/2) χ²(α, α_0) + (μ/2)‖α − α_prev‖²

    over ``α ≥ ε α_0``, ``|w̃_i − w̃_j| ≤ δ`` on the graph's edges (``ScheduleSolver``), where
    ``b = Mᵀt/s``, ``RᵀR = MᵀM/s``, s the sequences' mean of their cluster's ``‖m‖²``. Losses
    count alike, unless ``reweigh``. The average of α serves as a proxy's result.

    Args:
        clusters: K ≥ 1.
        interval: optimiser steps between two updates, ≥ 1.
        observed: steps before an update whose sequences are sketched, 1 … ``interval``.
        window: sequences whose sketches are clustered, the newest of all that were sketched. Many
            smooth P; few keep to the model's gradients of today.
        target: whose loss is to fall. None: all sources alike; weights by name: any mixture; a
            name: that source alone, which is then never drawn.
        held_out: sequences of each source kept from training, for probes.
        probe: of these, of each source, that one probe takes.
        memory: in [0, 1), weight of earlier probes in the target's gradient.
        kappa: κ ≥ 0, curvature.
        laplacian: λ ≥ 0, how much neighbours move together.
        max_difference: δ ≥ 0. None: no such constraint.
        prior_pull: ν ≥ 0.
        proximity: μ > 0; large values take small steps.
        geometry: of the step: "euclidean" or "entropic".
        floor: ε in [0, 1).
        neighbours: of each node in the graph.
        adapt: learn ln κ, ln λ, ln μ by one-step look-ahead (``LookAhead``).
        reweigh: also weigh losses as published DoGraph does, which sketches every step.
        beta: of ``reweigh``.
        seed: of K-means.
        prior: α_0 by name, and the start. None: uniform.

    Attributes:
        graph: the last domain graph; its labels are the window's sequences, oldest first.
        graph_domain: (n,) human domains of these sequences.
        record: of every update, for the pictures.
    """

    needs = frozenset({Signal.SKETCH, Signal.PROBE})

    def __init__(
        self,
        clusters: int = 11,
        interval: int = 40,
        observed: int = 4,
        window: int = 512,
        target: str | dict[str, float] | None = None,
        held_out: int = 32,
        probe: int = 4,
        memory: float = 0.5,
        kappa: float = 0.5,
        laplacian: float = 0.1,
        max_difference: float | None = None,
        prior_pull: float = 0.2,
        proximity: float = 4.0,
        geometry: Geometry = "euclidean",
        floor: float = 0.2,
        neighbours: int = 3,
        adapt: bool = False,
        reweigh: bool = False,
        beta: float = 0.1,
        seed: int = 0,
        prior: dict[str, float] | None = None,
    ) -> None:
        for key, value, least in (
            ("interval", interval, 1),
            ("clusters", clusters, 1),
            ("observed", observed, 1),
            ("held_out", held_out, 1),
            ("probe", probe, 1),
            ("kappa", kappa, 0),
            ("laplacian", laplacian, 0),
            ("max_difference", 0 if max_difference is None else max_difference, 0),
            ("prior_pull", prior_pull, 0),
            ("neighbours", neighbours, 1),
            ("beta", beta, 0),
        ):
            if not least <= value < math.inf:
                raise UserError(f"mixer.init_args.{key} is {value}: it must be ≥ {least}")
        super().__init__(update_every=interval, prior=prior)
        if geometry not in ("euclidean", "entropic"):
            raise UserError(f"geometry is {geometry!r}: it is 'euclidean' or 'entropic'")
        if observed > interval:
            raise UserError(
                f"mixer.init_args.observed is {observed}: it must be ≤ interval ({interval})"
            )
        if not proximity > 0 or not 0 <= memory < 1:
            raise UserError(
                f"mixer.init_args: proximity is {proximity} (it must be > 0), memory is {memory} "
                "(it must lie in [0, 1))"
            )
        if window < clusters:
            raise UserError(
                f"mixer.init_args.clusters is {clusters}, but window holds {window} sequences: "
                "lower clusters or raise window"
            )
        self.clusters, self.observed, self.target, self.memory = clusters, observed, target, memory
        self.held_out, self.probe = held_out, probe
        self.prior_pull, self.max_difference = prior_pull, max_difference
        self.neighbours, self.seed = neighbours, seed
        self.solver = ScheduleSolver(
            edges=max_difference is not None, geometry=geometry, floor=floor
        )
        scalars = {"kappa": kappa, "laplacian": laplacian, "proximity": proximity}
        self.look_ahead = LookAhead(scalars, kappa, active=adapt)
        self.published = DoGraph(clusters, beta=beta, seed=seed) if reweigh else None
        self.window, self.recent = window, SketchWindow(window)
        self.tracked = TrackedClusters(clusters, seed)
        self.targets: Tensor | None = None
        self.graph: DomainGraph | None = None
        self.graph_domain = torch.zeros(0, dtype=torch.int64)
        self.solution: Solution | None = None
        self.record: list[dict[str, Any]] = []

    def check(self, batch_size: int) -> None:
        """Raises UserError where the published loss weights do not fit the batch."""
        if self.published is not None:
            self.published.check(batch_size)

    def initial_weights(self) -> Tensor:
        """(S,) the prior; nothing for a target that is not drawn."""
        if isinstance(self.target, str) and self.target not in self.domains:
            raise UserError(f"target {self.target!r} is no domain: there are {list(self.domains)}")
        self.drawn = torch.tensor([name != self.target for name in self.domains])
        weights = super().initial_weights() * self.drawn
        if not self.drawn.any():
            raise UserError(f"the target {self.target!r} is the only source: nothing can be drawn")
        if not (weights[self.drawn] > 0).all():
            raise UserError("prior gives a source no weight: leave it out of the corpus instead")
        return weights / weights.sum()

    def start(self) -> None:
        """Starts with an empty window, and resolves the target."""
        self.target_mixture = self._target_mixture()
        self.prior_weights = self.weights.clone()
        self.recent.clear()
        self.tracked = TrackedClusters(self.clusters, self.seed)
        self.targets = self.graph = self.solution = None
        self.record = []
        self.look_ahead.reset()
        self.solver.reset()
        if self.published is not None:
            self.published.setup(self.domains, self.domain_tokens, self.batch_size, self.vocab_size)

    def probes(self, domain: int) -> bool:
        """Only what the target is made of."""
        return bool(self.target_mixture[domain] > 0)

    def needs_at(self, step: int) -> Set[Signal]:
        """Sketches of the last ``observed`` steps before an update, and a probe with the last."""
        place = step % self.update_every
        needs = set()
        if self.published is not None or place >= self.update_every - self.observed:
            needs.add(Signal.SKETCH)
        if place == self.update_every - 1:
            needs.add(Signal.PROBE)
        return needs

    def step(self, signals: BatchSignals) -> bool:
        """Keeps what is sketched, then updates where an update is due."""
        observed = signals.step % self.update_every >= self.update_every - self.observed
        if observed and signals.sketch is not None:
            if bool(torch.isfinite(signals.sketch).all()):
                self.recent.add(signals.sketch, signals.domain)
            else:
                logger.warning("step %d: sketches are not finite and left out", signals.step + 1)
        return super().step(signals)

    @property
    def changes_loss(self) -> bool:
        """Whether losses are weighed as published DoGraph does, or as a subclass has it."""
        own = type(self).loss_weights is not DoGraphSchedule.loss_weights
        return self.published is not None or own

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) published DoGraph's weights if ``reweigh``, else alike."""
        if self.published is None:
            return super().loss_weights(signals)
        return self.published.loss_weights(signals)

    @one_thread()
    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) what to draw from now on; as before where there is nothing to go by."""
        if signals.probe_sketch is None or signals.probe_domain is None or not len(self.recent):
            return self.weights
        probe = mean_by_domain(
            signals.probe_sketch.cpu(), signals.probe_domain.cpu(), len(self.domains)
        )
        if not torch.isfinite(probe).all():
            logger.warning("step %d: the probe is not finite; weights stay", signals.step + 1)
            return self.weights
        before = self.targets
        self.targets = probe if before is None else self.memory * before + (1 - self.memory) * probe
        sketches = self.recent.sketches.double()
        labels, changes = self.tracked.update(sketches)
        for change in changes:
            logger.info("step %d: cluster %s", signals.step + 1, change)
        graph, means = domain_graph(sketches, labels, numbers=tuple(self.tracked.numbers))
        problem = self._problem(graph, means, self.targets)
        if before is not None and self.look_ahead.active:
            earlier = self._problem(graph, means, before)
            now = self._problem(graph, means, probe).b
            self.look_ahead.learn(self.solver, earlier, now, self._fixed)
        self.solution = self.solver(problem, **self.look_ahead.scalars(), **self._fixed)
        if not self.solution.ok:
            logger.warning("step %d: %s; weights stay", signals.step + 1, self.solution.status)
        weights = torch.zeros(len(self.domains), dtype=torch.float64)
        weights[self.drawn] = self.solution.weights.detach()
        shares = problem.P @ self.solution.weights.detach()
        graph.weights = shares / shares.sum()
        self.graph = graph
        self.graph_domain = self.recent.domain.clone()
        self._note(signals.step + 1, graph, problem.P, weights, len(changes))
        return weights

    def snapshot(self) -> MixerSnapshot:
        """The window's domain graph with its sequences' domains, and all updates."""
        return MixerSnapshot(self.graph, self.graph_domain, self.clusters, self._schedule())

    def _schedule(self) -> ScheduleSnapshot | None:
        if not self.record:
            return None
        sampled = zip(self.domains, self.drawn.tolist(), strict=True)
        keys = [field.name for field in fields(ScheduleUpdate)]
        return ScheduleSnapshot(
            sources=tuple(name for name, drawn in sampled if drawn),
            updates=[ScheduleUpdate(**{key: entry[key] for key in keys}) for entry in self.record],
        )

    def diagnostics(self) -> dict[str, float]:
        """Clusters, agreement with human labels, the terms' values, scalars, solver's health."""
        if not self.record:
            return {}
        last = self.record[-1]
        return {
            **last["diagnostics"],
            **{f"term/{name}": value for name, value in last["terms"].items()},
            **{f"scalar/{name}": value for name, value in last["scalars"].items()},
            **({} if self.published is None else self._of_published()),
        }

    def _of_published(self) -> dict[str, float]:
        found = self.published.diagnostics() if self.published is not None else {}
        return {f"reweigh/{name}": value for name, value in found.items()}

    @property
    def _fixed(self) -> dict[str, float]:
        delta = 1.0 if self.max_difference is None else self.max_difference
        return {"nu": self.prior_pull, "delta": delta}

    def _target_mixture(self) -> Tensor:
        if isinstance(self.target, str):
            return (~self.drawn).double()
        if self.target is None:
            return torch.full((len(self.domains),), 1 / len(self.domains), dtype=torch.float64)
        return weights_by_name(self.target, self.domains, "target")

    def _problem(self, graph: DomainGraph, means: Tensor, targets: Tensor) -> ScheduleProblem:
        """The problem of the sources that are drawn, from clusters of (m, k) means."""
        # By sequences: clusters of one or two are mostly noise, and their norms the largest.
        share = graph.counts.double() / graph.counts.sum()
        scale = (share @ graph.kernel.diagonal()).clamp(min=1e-30)
        shares = contingency(graph.labels, self.recent.domain, len(self.domains))[:, self.drawn]
        values, vectors = torch.linalg.eigh(graph.kernel / scale)
        root = values.clamp(min=0).sqrt()[:, None] * vectors.T
        return ScheduleProblem(
            b=means @ (self.target_mixture @ targets) / scale,
            R=root,
            laplacian_root=edge_rows(affinity(graph.distances, self.neighbours)),
            P=shares,
            prior=self.prior_weights[self.drawn],
            previous=self.weights[self.drawn],
        )

    def _note(
        self, step: int, graph: DomainGraph, shares: Tensor, weights: Tensor, changes: int
    ) -> None:
        assert self.solution is not None
        before = self.record[-1]["diagnostics"]["cluster_changes"] if self.record else 0.0
        if self.record:
            self.record[-1]["contingency"] = []  # only the last is drawn
        self.record.append(
            {
                "step": step,
                "numbers": list(self.tracked.numbers),
                "clusters": graph.weights.tolist(),
                "contingency": shares.tolist(),
                "terms": dict(self.solver.terms),
                "scalars": self.look_ahead.values(),
                "diagnostics": {
                    "effective_clusters": effective_number(graph.weights),
                    "mutual_information": mutual_information(graph.labels, self.graph_domain),
                    "cluster_changes": before + changes,
                    "movement": 0.5 * (weights - self.weights).abs().sum().item(),
                    "solver_milliseconds": 1000 * self.solution.seconds,
                    "solver_optimal": float(self.solution.ok),
                    "solver_failures": float(self.solver.failures),
                },
            }
        )

    def get_extra_state(self) -> dict[str, Any]:
        """Adds window, clusters, target, scalars and record to the base's state."""
        return {
            **super().get_extra_state(),
            "window": self.recent.state_dict(),
            "tracked": self.tracked.state_dict(),
            "targets": self.targets,
            "look_ahead": self.look_ahead.state_dict(),
            "record": list(self.record),
            "failures": self.solver.failures,
            "graph": None if self.graph is None else asdict(self.graph),
            "graph_domain": self.graph_domain,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what ``get_extra_state`` gave."""
        super().set_extra_state(state)
        self.recent.load_state_dict(state["window"])
        self.tracked.load_state_dict(state["tracked"])
        self._check_state(state)
        self.targets = state["targets"]
        self.look_ahead.load_state_dict(state["look_ahead"])
        self.record = list(state["record"])
        self.solver.failures = int(state["failures"])
        self.graph = None if state["graph"] is None else DomainGraph(**state["graph"])
        self.graph_domain = state["graph_domain"]

    def _check_state(self, state: dict[str, Any]) -> None:
        """Raises UserError for what would only fail at the next update, or in a figure."""
        targets = isinstance(state["targets"], Tensor | None)
        records = all(
            len(entry["numbers"]) == len(entry["clusters"])
            and all(isinstance(entry[key], dict) for key in ("terms", "scalars", "diagnostics"))
            for entry in state["record"]
        )
        if not targets or not records:
            raise UserError("DoGraphSchedule's state in the checkpoint is none of this mixer")
