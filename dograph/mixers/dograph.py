"""DoGraph as published: the batch's clusters of gradients, re-weighted (arXiv 2604.07963)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from inspect import signature
from typing import Literal, get_args

import torch
from torch import Tensor

from dograph.errors import UserError, check_choice, check_range
from dograph.graph.clusters import cluster_sequences, effective_number, mutual_information
from dograph.graph.cvxpy_problem import CvxpyProblem, split_solver
from dograph.graph.domain_graph import DomainGraph, domain_graph
from dograph.graph.graph_solver import GraphSolver, kernel_scale
from dograph.graph.kernel import kernel_root
from dograph.graph.minimise import Backend, Solution
from dograph.graph.objectives import alignment, robust
from dograph.graph.threads import one_thread
from dograph.mixers.base import BaseMixer
from dograph.mixers.problem_state import ProblemState
from dograph.mixers.snapshot import MixerSnapshot
from dograph.signals.batch_signals import BatchSignals, Sketch

logger = logging.getLogger(__name__)

EXTRAS = ("anchor", "laplacian", "max_difference", "cluster_floor")
"""Settings of the problem that are ours."""
Objective = Literal["uncertainty", "alignment", "variance", "robust"]


class DoGraph(BaseMixer):
    """Clusters the batch's gradients, weighs the clusters by a graph problem (Algorithm 1).

    Each step: K-means of the gradient sketches into m clusters, their means ``ḡ_j``, and

        w = argmin over the simplex of  ‖Σ_j w_j ḡ_j‖² / s + β Σ_j σ_j² w_j / s  (+ anchor)

    with ``s = tr K / m``, ``K = ḠᵀḠ`` and ``σ_j²`` the spread of cluster j; sequence i of
    cluster j then counts ``w_j / n_j``. Sampling stays as ``prior`` sets it (default uniform).

    Args:
        clusters: m ≥ 1, at most the batch (times ``window``).
        objective: of the paper's appendix A.6: "uncertainty" (above), "alignment"
            (``w_j ∝ cos(ḡ_j, Σ w_i ḡ_i)₊``), "variance" (minimum norm) or "robust"
            (``w_j ∝ exp(‖ḡ_j‖² / (τ s))``).
        beta: weight of the spread in "uncertainty", ≥ 0.
        tau: temperature of "robust", > 0.
        anchor: ν ≥ 0, ours: adds ``ν Σ_j (w_j − n_j/n)² / (n_j/n)``; 0 is as published.
        laplacian: γ ≥ 0, ours: adds ``γ w̄ᵀ L w̄`` on the mutual-neighbour graph; 0 is off.
        max_difference: δ, ours: ``|w_i − w_j| ≤ δ`` along that graph's edges. None is off.
        neighbours: of each node in that graph.
        cluster_floor: ε in [0, 1): ``w_j ≥ ε/m``.
        spread: "mean" squared distance to the centre, or its "printed" variance form.
        window: batches whose sketches are clustered together, ≥ 1.
        solver: "piqp", "cvxpylayers", or a problem of one's own, which is solved in place of the
            objective: it is given ``root`` F (m, m) with ``FᵀF = K/s``, ``spread`` σ²/s and
            ``shares`` n_j/n.
        seed: of K-means.
        warmup: optimiser steps of uniform loss weights.
        prior: sampling weights by domain name. None: uniform.

    Attributes:
        graph: the last batch's domain graph.
        solution: what the solver answered last, where the objective has a solver.
    """

    not_saved = frozenset({"graph", "solution", "own_problem"})  # of the last batch

    def __init__(
        self,
        clusters: int = 11,
        objective: Objective = "uncertainty",
        beta: float = 0.1,
        tau: float = 1.0,
        anchor: float = 0.0,
        laplacian: float = 0.0,
        max_difference: float | None = None,
        neighbours: int = 3,
        cluster_floor: float = 0.0,
        spread: Literal["mean", "printed"] = "mean",
        window: int = 1,
        solver: Backend | CvxpyProblem = "piqp",
        seed: int = 0,
        warmup: int = 0,
        prior: dict[str, float] | None = None,
    ) -> None:
        super().__init__(warmup=warmup, prior=prior)
        for key, value, least in (
            ("clusters", clusters, 1),
            ("window", window, 1),
            ("beta", beta, 0),
            ("anchor", anchor, 0),
            ("laplacian", laplacian, 0),
            ("max_difference", 0 if max_difference is None else max_difference, 0),
        ):
            check_range(f"mixer.init_args.{key}", value, at_least=least)
        check_range("mixer.init_args.tau", tau, above=0)
        check_choice("mixer.init_args.objective", objective, get_args(Objective))
        check_choice("mixer.init_args.spread", spread, ("mean", "printed"))
        extras = anchor or laplacian or cluster_floor or max_difference is not None
        if extras and objective not in ("uncertainty", "variance"):
            raise UserError(
                f"mixer.init_args.objective {objective!r} has a closed form: anchor, laplacian, "
                "max_difference and cluster_floor need 'uncertainty' or 'variance'"
            )
        backend, self.own_problem = split_solver(solver)
        self.problem_state = None
        if self.own_problem is not None:
            self.problem_state = ProblemState(self.own_problem)
            _check_unused(locals(), type(self.own_problem).__name__)
        self.needs = {Sketch(across_steps=window > 1)}
        self.clusters, self.objective, self.tau = clusters, objective, tau
        self.beta = beta if objective == "uncertainty" else 0.0
        self.anchor, self.laplacian, self.max_difference = anchor, laplacian, max_difference
        self.spread: Literal["mean", "printed"] = spread
        self.window, self.seed = window, seed
        self.solver = GraphSolver(
            laplacian=laplacian > 0,
            edges=max_difference is not None,
            anchor=anchor > 0,
            floor=cluster_floor,
            neighbours=neighbours,
            backend=backend,
        )
        self.recent: deque[Tensor] = deque(maxlen=window - 1)
        self.graph: DomainGraph | None = None
        self.solution: Solution | None = None
        self._assigned: tuple[Tensor, Tensor] | None = None
        self._effective_sequences = 0.0

    def check(self, batch_size: int) -> None:
        """Raises UserError for more clusters than the window holds sequences."""
        if self.clusters > batch_size * self.window:
            raise UserError(
                f"mixer.init_args.clusters is {self.clusters}, but a window of {self.window} "
                f"batch(es) of {batch_size} holds {batch_size * self.window} sequences: lower "
                "clusters, or raise data.batch_size or mixer.init_args.window"
            )

    def reset(self) -> None:
        """Starts with an empty window."""
        self.recent.clear()
        if self.problem_state is not None:
            self.problem_state.reset()
        self.graph = self.solution = self._assigned = None

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) ``w_{c(i)} / n_{c(i)}``; uniform, logged and counted, after a failed solve."""
        assert signals.sketch is not None
        earlier = [sketch.to(signals.sketch) for sketch in self.recent]
        sketches = torch.cat([*earlier, signals.sketch])
        self.recent.append(signals.sketch)
        with one_thread():
            labels = cluster_sequences(sketches, self.clusters, seed=self.seed + signals.step)
            graph = domain_graph(sketches, labels, self.spread)
            graph.weights = self._cluster_weights(graph, signals.step)
        self.graph = graph
        here = labels[-signals.batch_size :].cpu()
        self._assigned = here, signals.domain
        weights = (graph.weights.cpu() / graph.counts.cpu())[here]
        # With a window, clusters that have no sequence in this batch leave their weight to it.
        if weights.sum() == 0:
            weights = torch.ones_like(weights)
        weights /= weights.sum()
        self._effective_sequences = 1 / weights.square().sum().item()
        return weights

    def snapshot(self) -> MixerSnapshot:
        """The last batch's domain graph."""
        return MixerSnapshot(graph=self.graph, clusters=self.clusters)

    def diagnostics(self) -> dict[str, float]:
        """Effective clusters and sequences, mutual information with human labels, solver's health.

        Effective sequences are ``1 / Σ_i a_i²``: B for uniform weights, less for a smaller
        effective batch.
        """
        if self.graph is None or self._assigned is None:
            return {}
        scalars = {
            "effective_clusters": effective_number(self.graph.weights),
            "effective_sequences": self._effective_sequences,
            "mutual_information": mutual_information(*self._assigned),
        }
        if self.solution is not None:
            scalars["solver_milliseconds"] = 1000 * self.solution.seconds
            scalars["solver_optimal"] = float(self.solution.ok)
            solver = self.solver if self.own_problem is None else self.own_problem
            scalars["solver_failures"] = float(solver.failures)
        return scalars

    def _solve_own(self, problem: CvxpyProblem, graph: DomainGraph) -> Solution:
        """The solution of the user's problem; its fallback is ``n_j/n``."""
        scale = kernel_scale(graph.kernel)
        shares = graph.counts.double().cpu() / graph.counts.sum().item()
        given = {
            "root": kernel_root(graph.kernel.double().cpu() / scale.cpu()),
            "spread": graph.spread / scale,
        }
        return problem({**given, "shares": shares}, fallback=shares)

    def _cluster_weights(self, graph: DomainGraph, step: int) -> Tensor:
        if self.own_problem is not None:
            self.solution = self._solve_own(self.own_problem, graph)
        elif self.objective == "alignment":
            return alignment(graph.kernel)
        elif self.objective == "robust":
            return robust(graph.kernel, self.tau)
        else:
            self.solution = self.solver(
                graph.kernel,
                graph.spread,
                graph.counts,
                beta=self.beta,
                nu=self.anchor,
                gamma=self.laplacian,
                delta=1.0 if self.max_difference is None else self.max_difference,
            )
        if not self.solution.ok:
            solver = self.solver if self.own_problem is None else self.own_problem
            health = f"{solver.failures} failed of {solver.solves} solves"
            message = "step %d: %s; every sequence counts the same (%s)"
            logger.warning(message, step, self.solution.status, health)
        return self.solution.weights


def _check_unused(given: Mapping[str, object], problem: str) -> None:
    """Raises UserError for a setting of the problem in whose place one's own is solved."""
    for name in ("objective", "beta", "tau", *EXTRAS):
        default = signature(DoGraph).parameters[name].default
        if given[name] != default:
            raise UserError(
                f"mixer.init_args.{name} is {given[name]}, but {problem} is solved in place of the "
                "objective that it belongs to: state it there, and leave it out here"
            )
