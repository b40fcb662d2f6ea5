"""DoGraph as a sampling schedule: the graph decides what is drawn (ours)."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from dograph.errors import UserError, check_range
from dograph.graph.clusters import effective_number, group_means, mutual_information
from dograph.graph.domain_graph import DomainGraph, affinity, domain_graph, edge_rows
from dograph.graph.minimise import Solution
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver
from dograph.graph.threads import one_thread
from dograph.graph.tracking import TrackedClusters
from dograph.graph.window import SketchWindow, contingency
from dograph.mixers.base import SAMPLING, BaseMixer
from dograph.mixers.dograph import DoGraph
from dograph.mixers.look_ahead import LookAhead
from dograph.mixers.schedule_settings import (
    NODES,
    PROBE,
    PROBLEM,
    NodeSettings,
    ProbeSettings,
    ProblemSettings,
)
from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate
from dograph.signals.batch_signals import BatchSignals, Probe, Sketch

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
        interval: optimiser steps between two updates, ≥ 1.
        nodes: how the graph's nodes are made.
        probe: how the target's gradient is measured.
        problem: scalars and constraints of the problem.
        reweigh: β ≥ 0: also weigh losses as published DoGraph does, which sketches every step.
            None: losses count alike.
        seed: of K-means.
        prior: α_0 by name, and the start. None: uniform.

    Attributes:
        graph: the last domain graph; its labels are the window's sequences, oldest first.
        graph_domain: (n,) human domains of these sequences.
        record: of every update, for the pictures.
    """

    not_saved = frozenset({"graph", "solution"})  # the graph is saved by hand

    def __init__(
        self,
        interval: int = 40,
        nodes: NodeSettings = NODES,
        probe: ProbeSettings = PROBE,
        problem: ProblemSettings = PROBLEM,
        reweigh: float | None = None,
        seed: int = 0,
        prior: dict[str, float] | None = None,
    ) -> None:
        check_range("mixer.init_args.interval", interval, at_least=1)
        super().__init__(update_every=interval, prior=prior)
        if nodes.observed > interval:
            raise UserError(
                f"mixer.init_args.nodes.observed is {nodes.observed}: it must be ≤ interval "
                f"({interval})"
            )
        self.needs = {
            Sketch(last=nodes.observed if reweigh is None else None, across_steps=True),
            Probe(probe.held_out, probe.per_update),
        }
        if reweigh is None and type(self).loss_weights is DoGraphSchedule.loss_weights:
            self.acts_on = {SAMPLING}
        self.nodes, self.memory, self.problem = nodes, probe.memory, problem
        self.seed = seed
        self.solver = ScheduleSolver(
            edges=problem.max_difference is not None,
            geometry=problem.geometry,
            floor=problem.floor,
        )
        self.look_ahead = LookAhead(problem.start, problem.kappa, active=problem.adapt)
        self.published = (
            None if reweigh is None else DoGraph(nodes.clusters, beta=reweigh, seed=seed)
        )
        self.recent = SketchWindow(nodes.window)
        self.tracked = TrackedClusters(nodes.clusters, seed)
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
        """(S,) the prior."""
        weights = super().initial_weights()
        if not (weights[self.trained] > 0).all():
            raise UserError(
                "mixer.init_args.prior gives a source no weight: name it in data.unseen instead"
            )
        return weights

    def reset(self) -> None:
        """Starts with an empty window."""
        self.target_mixture = self.target.weights(self.domains)
        self.prior_weights = self.weights.clone()
        self.recent.clear()
        self.tracked = TrackedClusters(self.nodes.clusters, self.seed)
        self.targets = self.graph = self.solution = None
        self.record = []
        self.look_ahead.reset()
        self.solver.reset()
        if self.published is not None:
            corpus = self.domains, self.domain_tokens, self.batch_size, self.vocab_size
            self.published.setup(*corpus, self.target.value, self.unseen)

    def step(self, signals: BatchSignals) -> bool:
        """Keeps what is sketched, then updates where an update is due."""
        due = self.update_every - 1 - signals.step % self.update_every < self.nodes.observed
        if due and signals.sketch is not None:
            if bool(torch.isfinite(signals.sketch).all()):
                self.recent.add(signals.sketch, signals.domain)
            else:
                logger.warning("step %d: sketches are not finite and left out", signals.step + 1)
        return super().step(signals)

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
        probe_sketch, probe_domain = signals.probe_sketch.cpu().double(), signals.probe_domain.cpu()
        probe = group_means(probe_sketch, probe_domain, len(self.domains))
        if not torch.isfinite(probe).all():
            logger.warning("step %d: the probe is not finite; weights stay", signals.step + 1)
            return self.weights
        before = self.targets
        self.target_mixture = self.target.weights(self.domains, signals.domain_loss)
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
            self.look_ahead.learn(self.solver, earlier, now, self.problem.fixed)
        self.solution = self.solver(problem, **self.look_ahead.scalars(), **self.problem.fixed)
        if not self.solution.ok:
            logger.warning("step %d: %s; weights stay", signals.step + 1, self.solution.status)
        weights = torch.zeros(len(self.domains), dtype=torch.float64)
        weights[self.trained] = self.solution.weights.detach()
        shares = problem.P @ self.solution.weights.detach()
        graph.weights = shares / shares.sum()
        self.graph = graph
        self.graph_domain = self.recent.domain.clone()
        self._note(signals.step + 1, graph, problem.P, weights, len(changes))
        return weights

    def snapshot(self) -> MixerSnapshot:
        """The window's domain graph with its sequences' domains, and all updates."""
        schedule = None
        if self.record:
            sources = tuple(name for name in self.domains if name not in self.unseen)
            keys = [field.name for field in fields(ScheduleUpdate)]
            updates = [ScheduleUpdate(**{key: each[key] for key in keys}) for each in self.record]
            schedule = ScheduleSnapshot(sources, updates)
        return MixerSnapshot(self.graph, self.graph_domain, self.nodes.clusters, schedule)

    def diagnostics(self) -> dict[str, float]:
        """Clusters, agreement with human labels, the terms' values, scalars, solver's health."""
        if not self.record:
            return {}
        last = self.record[-1]
        published = {} if self.published is None else self.published.diagnostics()
        return {
            **last["diagnostics"],
            **{f"term/{name}": value for name, value in last["terms"].items()},
            **{f"scalar/{name}": value for name, value in last["scalars"].items()},
            **{f"reweigh/{name}": value for name, value in published.items()},
        }

    def _problem(self, graph: DomainGraph, means: Tensor, targets: Tensor) -> ScheduleProblem:
        """The problem of the sources that are drawn, from clusters of (m, k) means."""
        # By sequences: clusters of one or two are mostly noise, and their norms the largest.
        share = graph.counts.double() / graph.counts.sum()
        scale = (share @ graph.kernel.diagonal()).clamp(min=1e-30)
        shares = contingency(graph.labels, self.recent.domain, len(self.domains))[:, self.trained]
        values, vectors = torch.linalg.eigh(graph.kernel / scale)
        return ScheduleProblem(
            b=means @ (self.target_mixture @ targets) / scale,
            R=values.clamp(min=0).sqrt()[:, None] * vectors.T,
            laplacian_root=edge_rows(affinity(graph.distances, self.nodes.neighbours)),
            P=shares,
            prior=self.prior_weights[self.trained],
            previous=self.weights[self.trained],
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
        """Adds the graph to the base's state."""
        graph = None if self.graph is None else asdict(self.graph)
        return {**super().get_extra_state(), "graph": graph, "failures": self.solver.failures}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores it; UserError for what would only fail at the next update, or in a figure."""
        super().set_extra_state(state)
        if not isinstance(self.targets, Tensor | None) or not all(map(_is_record, self.record)):
            raise UserError("the checkpoint's state of DoGraphSchedule is another mixer's")
        self.graph = None if state["graph"] is None else DomainGraph(**state["graph"])
        self.solver.failures = int(state["failures"])


def _is_record(entry: Any) -> bool:
    """Whether an entry of ``record`` has what figures and diagnostics read."""
    return len(entry["numbers"]) == len(entry["clusters"]) and all(
        isinstance(entry[key], dict) for key in ("terms", "scalars", "diagnostics")
    )
