"""DoGraph as a sampling schedule: the graph of domains decides what is drawn (ours)."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dograph.errors import UserError, check_range
from dograph.graph.cvxpy_problem import CvxpyProblem, split_solver
from dograph.graph.domain_graph import DomainGraph
from dograph.graph.minimise import Backend, Solution
from dograph.graph.polytope import Polytope
from dograph.graph.schedule_solver import ScheduleSolver
from dograph.graph.threads import one_thread
from dograph.graph.token_kernel import TokenKernel
from dograph.graph.token_pairs import pair_kernel
from dograph.mixers.base import SAMPLING, BaseMixer
from dograph.mixers.dograph import DoGraph
from dograph.mixers.problem_state import ProblemState
from dograph.mixers.schedule_problem import (
    graph_of_domains,
    parameters_of,
    relative,
    schedule_problem,
)
from dograph.mixers.schedule_settings import PROBLEM, ProblemSettings
from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate
from dograph.mixers.target import Target
from dograph.signals.batch_signals import (
    BatchSignals,
    DomainText,
    EmbeddingGradients,
    Probe,
    Request,
    Sketch,
    ValidationLoss,
)
from dograph.signals.domain_sums import DomainSums

logger = logging.getLogger(__name__)

LEAST_PRIOR = 1e-6
"""Smallest prior weight in the problem of a domain that limits hold at 0."""


class DoGraphSchedule(BaseMixer):
    """Draws what its graph of domains expects to lower the target's loss.

    Nodes are the domains. Their kernel K says how far a step on one lowers another's loss. Before
    training it comes from ``text_tokens`` tokens of each domain: gradients of a model of token
    pairs that has learnt nothing (``pair_kernel``). With ``measure`` the run's own gradients at the
    token embeddings join it (``TokenKernel``): the prior is drawn until they are read, since the
    gradients of what is drawn shrink, and domains would no longer compare. Then, and every
    ``interval`` steps, with the target's mixture τ of domains, the weights α minimise

        − ⟨b, α⟩ + (κ/2) (α − α_0)ᵀK(α − α_0) + (λ/2) α̃ᵀLα̃ + (ν/2) χ²(α, α_0)

    over ``α ≥ ε α_0``, ``α ≥ ½ min(τ, α_0)``, ``|α̃_i − α̃_j| ≤ δ`` on the graph's edges
    (``ScheduleSolver``). K is divided by its value at the prior, ``α_0ᵀKα_0``. The influence b is
    ``c K(τ̂ − κ α_0)``: what the target asks for, with τ scaled to ``⟨Kτ̂, α_0⟩ = 1``, so that the
    gradients' size does not count, and shrunk by the certainty c, which is 0 where influences
    hardly differ, as under an even target: then the prior is drawn. What still changes: a source
    that repeats loses its part of ``Kτ̂`` by ``exp(−(epochs − 1) / R)`` (Muennighoff et al. 2023,
    arXiv 2305.16264), and where the target is the worst domain, τ follows the losses of those that
    are trained on: the last validation's, moved by what training's have done since; before the
    first validation it is even. As any domain may become the worst, each keeps ``½ α_0`` then. The
    average of α serves as a proxy's result.

    Args:
        interval: optimiser steps between two updates, ≥ 1.
        text_tokens: tokens of each domain that are read before training, ≥ 0. 0: none; then
            gradients decide alone.
        pair_rows: rows of the model of token pairs, a power of two; more pairs than rows share
            rows by a hash.
        measure: optimiser steps that are drawn by the prior while gradients are read; 0, or
            ≥ skip + interval. 0: none are read.
        skip: optimiser steps before the first whose gradients are read, ≥ 0: early ones tell
            common tokens alone.
        probe: sequences of each unseen domain of the target that a step at the end of an
            interval takes while gradients are read, ≥ 1.
        rank: numbers that are kept of a token's gradient, ≥ 1.
        problem: scalars and constraints of the problem.
        solver: "piqp", "cvxpylayers", or a problem of one's own, which is solved in its place over
            the m sources with its floor and the run's limits. It is given (m,) ``influence`` b,
            ``pull`` Kα_0, ``prior`` α_0, ``root_prior`` α_0^(−½), and (m, m) ``root`` R with
            ``RᵀR = K``.
        reweigh: β ≥ 0: also weigh losses as published DoGraph does, which sketches every step.
            None: losses count alike.
        anchor: ν of that re-weighting, ≥ 0.
        seed: of K-means.
        prior: α_0 by name. None: uniform.

    Attributes:
        graph: the graph of the domains that are drawn.
        record: of every update, for the pictures.
    """

    not_saved = frozenset({"graph", "solution", "own_problem"})  # the graph is saved by hand

    def __init__(
        self,
        interval: int = 20,
        text_tokens: int = 200_000,
        pair_rows: int = 65_536,
        measure: int = 0,
        skip: int = 40,
        probe: int = 64,
        rank: int = 64,
        problem: ProblemSettings = PROBLEM,
        solver: Backend | CvxpyProblem = "piqp",
        reweigh: float | None = None,
        anchor: float = 1.0,
        seed: int = 0,
        prior: dict[str, float] | None = None,
    ) -> None:
        for key, value in (("interval", interval), ("probe", probe), ("rank", rank)):
            check_range(f"mixer.init_args.{key}", value, at_least=1)
        for key, value in (("skip", skip), ("text_tokens", text_tokens), ("measure", measure)):
            check_range(f"mixer.init_args.{key}", value, at_least=0)
        _check_sources(text_tokens, pair_rows, measure, skip + interval)
        super().__init__(update_every=interval, prior=prior)
        self.needs = {DomainText(text_tokens)} if text_tokens else set()
        if measure:
            self.needs |= {EmbeddingGradients(rank), Probe(probe, probe)}
        if reweigh is not None:
            self.needs |= {Sketch()}
        elif (type(self).acts_on, type(self).loss_weights) == (None, DoGraphSchedule.loss_weights):
            self.acts_on = {SAMPLING}
        self.pair_rows = pair_rows
        self.skip, self.measure, self.problem = skip, measure, problem
        self.acts_from = measure
        backend, self.own_problem = split_solver(solver)
        self.problem_state = None
        if self.own_problem is not None:
            self.problem_state = ProblemState(self.own_problem)
            problem.check_unused(type(self.own_problem).__name__)
        self.solver = ScheduleSolver(
            edges=problem.max_difference is not None,
            floor=problem.floor,
            backend=backend,
        )

        self.published = (
            None if reweigh is None else DoGraph(beta=reweigh, anchor=anchor, seed=seed)
        )
        self.gradients = TokenKernel(0)
        self.measured = False
        self.kernel: tuple[Tensor, Tensor] | None = None
        self.graph: DomainGraph | None = None
        self.solution: Solution | None = None
        self.record: list[dict[str, Any]] = []

    def check(self, batch_size: int) -> None:
        """Raises UserError where the published loss weights do not fit the batch."""
        if self.published is not None:
            self.published.check(batch_size)

    @one_thread()  # else a resume on another number of threads would begin otherwise
    def initial_weights(self) -> Tensor:
        """(S,) by the kernel of the domains' text; the prior, while gradients are to be read."""
        self.prior_weights = self._prior()
        self.drawn = DomainSums(len(self.domains))
        self._counted = torch.zeros(len(self.domains), dtype=torch.int64)
        self._worst = torch.zeros(len(self.domains), dtype=torch.float64)
        self._validation: Tensor | None = None
        self._held_out_gap = torch.zeros(len(self.domains), dtype=torch.float64)
        if self.reads_validations(self.target):
            self.needs = {*self.needs, ValidationLoss()}
        self.gradients = TokenKernel(len(self.domains))
        self.measured = not self.measure
        self.kernel = self.graph = self.solution = None
        self.record = []
        self.solver.reset()
        if self.problem_state is not None:
            self.problem_state.reset()
        if self.request(DomainText):
            self.kernel = pair_kernel(self.text, self.vocab_size, self.pair_rows, self.trained)
        if self.kernel is None or self.measure:
            return self.prior_weights
        return self._solve(self._target_mixture(None), torch.zeros(len(self.domains)), None, 0)

    def reset(self) -> None:
        """Sets up the published weights of losses, if they are asked for."""
        if self.published is not None:
            self.published.setup(self.domains, self.domain_tokens, self.batch_size, self.vocab_size)

    def _prior(self) -> Tensor:
        """(S,) α_0; nothing for unseen domains."""
        weights = super().initial_weights() * self.trained
        if not (weights[self.trained] > 0).all():
            index = int((~(weights > 0) & self.trained).nonzero()[0])
            raise UserError(
                f"mixer.init_args.prior.{self.domains[index]} is 0: give it a weight, or name it "
                "in data.unseen"
            )
        return weights / weights.sum()

    @classmethod
    def reads_validations(cls, target: Target) -> bool:
        """Whether runs for a target draw by their validations' losses: the worst domain's."""
        return target.is_worst

    def probes(self, domain: str) -> bool:
        """Whether a domain is probed: an unseen one that counts in the target."""
        return domain in self.unseen and self.target.mixture.get(domain, 0.0) > 0

    def needs_at(self, step: int, kind: type[Request]) -> bool:
        """Whether a signal is needed: domains' gradients only from ``skip`` to ``measure``."""
        if kind in (EmbeddingGradients, Probe) and not self.skip <= step < self.measure:
            return False
        return super().needs_at(step, kind)

    def step(self, signals: BatchSignals) -> bool:
        """Keeps the gradients, then updates where an update is due."""
        if signals.token_gradients is not None:
            self.gradients.add(signals.token_gradients, self.vocab_size)
        self.drawn.add(signals.domain, signals.sequence_loss)
        return super().step(signals)

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) published DoGraph's weights if ``reweigh``, else alike."""
        if self.published is None:
            return super().loss_weights(signals)
        return self.published.loss_weights(signals)

    @one_thread()
    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) what to draw from now on; the prior while gradients are measured."""
        mixture, done = self._target_mixture(signals), signals.step + 1
        if not self.measured:
            if signals.probe_gradients is not None:
                self.gradients.add(signals.probe_gradients, self.vocab_size)
            self.gradients.close()
            if done >= self.measure:
                self._add_gradients(mixture)
        if not self.measured or self.kernel is None:
            return self.prior_weights
        passed = self.drawn.counts * signals.sequence_tokens
        return self._solve(mixture, passed, signals.drawn_before, done)

    def _solve(self, mixture: Tensor, passed: Tensor, drawn: Tensor | None, done: int) -> Tensor:
        """(S,) the problem's solution for the target's ``mixture``, within the run's limits.

        ``passed`` (S,) are the tokens trained on in the ``done`` steps so far, ``drawn`` (S,) the
        sequences drawn before the solution is; None: none.
        """
        assert self.kernel is not None
        tokens = torch.tensor(self.domain_tokens, dtype=torch.float64)
        repeats = (passed / tokens - 1).clamp(min=0)
        worth = torch.exp(-repeats / self.problem.repetition)
        (kernel, error), (prior, within) = self.kernel, self._allowed_prior(drawn)
        problem, errors = schedule_problem(kernel, error, prior, mixture, worth, self.problem)
        # Any domain may become the worst.
        counts = prior if self.target.is_worst else torch.minimum(mixture, prior)
        least = self.problem.target_floor * counts[self.trained]
        if self.own_problem is None:
            self.solution = self.solver(problem, **self.problem.scalars, least=least, within=within)
        else:
            floor = torch.maximum(self.problem.floor * problem.prior, least)
            given = parameters_of(problem)
            self.solution = self.own_problem(given, problem.prior, floor, within)
            influence = -float(problem.b @ self.solution.weights)
            self.solver.terms = {"influence": influence} if self.solution.ok else {}
        self.prices = dict(self.solver.prices)
        if not self.solution.ok:
            logger.warning("step %d: %s; the prior is drawn", done, self.solution.status)
        weights = torch.zeros(len(self.domains), dtype=torch.float64)
        weights[self.trained] = self.solution.weights.detach()
        self.graph = graph_of_domains(kernel, weights, self.trained)
        self._note(done, problem.b, errors, weights)
        return weights

    def _allowed_prior(self, drawn: Tensor | None) -> tuple[Tensor, Polytope | None]:
        """(S,) the allowed mixture nearest to the prior; the limits over what is trained on."""
        if self.limits is None:
            return self.prior_weights, None
        within = self.limits.polytope(drawn)
        # A domain of no text left still has a row in the problem.
        prior = self._nearest(self.prior_weights, within, drawn).clamp(min=LEAST_PRIOR)
        prior = prior * self.trained / (prior * self.trained).sum()
        return prior, within.among(self.trained.numpy())

    def snapshot(self) -> MixerSnapshot:
        """The graph of the domains that are drawn, and all updates."""
        drawn = self.trained.nonzero().flatten()
        if not self.record:
            return MixerSnapshot(self.graph, drawn)
        sources = tuple(self.domains[index] for index in drawn.tolist())
        updates = [ScheduleUpdate(**each) for each in self.record]
        prior = tuple(self.prior_weights[drawn].tolist())
        schedule = ScheduleSnapshot(sources, self.target.label, updates, prior, self.measure)
        return MixerSnapshot(self.graph, drawn, schedule=schedule)

    def diagnostics(self) -> dict[str, float]:
        """Every source's influence with its error, epochs, the terms' values, solver's health."""
        published = {} if self.published is None else self.published.diagnostics()
        scalars = {f"reweigh/{name}": value for name, value in published.items()}
        if not self.record:
            return scalars
        last = ScheduleUpdate(**self.record[-1])
        names = [name for name, drawn in zip(self.domains, self.trained, strict=True) if drawn]
        for key, values in (("influence", last.influence), ("influence_error", last.error)):
            scalars |= {f"{key}/{name}": x for name, x in zip(names, values, strict=True)}
        scalars |= {f"term/{name}": value for name, value in last.terms.items()}
        scalars["solver_failures"] = float(self.solver.failures)
        if self.solution is not None:  # none yet in a resumed run
            scalars["solver_milliseconds"] = 1000 * self.solution.seconds
            scalars["solver_optimal"] = float(self.solution.ok)
        return scalars

    def _add_gradients(self, mixture: Tensor) -> None:
        """Adds the gradients' kernel to that of the text; frees the gradients for it."""
        self.measured = True
        missing = (self.trained | (mixture > 0)) & ~self.gradients.known
        if missing.any():
            names = ", ".join(self.domains[index] for index in missing.nonzero().flatten())
            instead = "the prior stays" if self.kernel is None else "the text decides alone"
            logger.warning(
                "no sequence of %s was drawn while gradients were read: %s", names, instead
            )
        else:
            read = relative(*self.gradients.kernel(self.trained), self.prior_weights)
            if not read[0].isfinite().all():
                raise UserError(
                    "gradients at the embeddings are not finite: training has diverged; lower "
                    "model.learning_rate or clip gradients"
                )
            if self.kernel is not None:
                kernel, error = relative(*self.kernel, self.prior_weights)
                read = read[0] + kernel, (read[1].square() + error.square()).sqrt()
            self.kernel = read
        self.gradients.reset()

    def _target_mixture(self, signals: BatchSignals | None) -> Tensor:
        """(S,) τ; for the worst domain those within some of its loss count, too.

        Before the first validation every domain may be the worst. A domain that was not drawn since
        the last update keeps its part.
        """
        if not self.target.is_worst:
            return self.target.weights(self.domains)
        if signals is None or self.validation_loss is None:
            return self.trained.double() / self.trained.sum()
        counts = self.drawn.counts
        present, self._counted = self.trained & (counts > self._counted), counts.clone()
        # A loss that is not measured anew is of an earlier model, and would look the worse for it.
        kept = self._worst * ~present
        among = present if kept.any() else self.trained
        losses = self._held_out_loss(signals) / self.problem.worst_within
        shared = torch.softmax(losses.masked_fill(~among, -torch.inf), dim=0)
        self._worst = shared if among is self.trained else kept + (1 - kept.sum()) * shared
        return self._worst

    def _held_out_loss(self, signals: BatchSignals) -> Tensor:
        """(S,) the last validation's losses, moved by what training's have done since.

        Training text may be far easier than held-out text of the same domain, for instance where
        few documents make a domain.
        """
        trained, validated = signals.domain_loss, self.validation_loss
        assert trained is not None and validated is not None
        if self.validated_since(self._validation):
            self._validation = validated.clone()
            self._held_out_gap = (validated - trained).nan_to_num(0.0)  # of domains not validated
        return trained + self._held_out_gap

    def _note(self, step: int, influence: Tensor, errors: Tensor, weights: Tensor) -> None:
        note = ScheduleUpdate(
            step=step,
            weights=weights[self.trained].tolist(),
            influence=influence.tolist(),
            error=errors.tolist(),
            terms=dict(self.solver.terms),
        )
        self.record.append(asdict(note))

    def get_extra_state(self) -> dict[str, Any]:
        """Adds the graph to the base's state."""
        graph = None if self.graph is None else asdict(self.graph)
        return {**super().get_extra_state(), "graph": graph, "failures": self.solver.failures}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores it; UserError for what would only fail at the next update, or in a figure."""
        super().set_extra_state(state)
        try:
            updates = [ScheduleUpdate(**each) for each in self.record]
        except TypeError as error:
            raise UserError(
                "the checkpoint's state of DoGraphSchedule belongs to another mixer"
            ) from error
        width = int(self.trained.sum())
        if any(len(each.weights) != width or len(each.error) != width for each in updates):
            raise UserError("the checkpoint's state of DoGraphSchedule belongs to another corpus")
        self.graph = None if state["graph"] is None else DomainGraph(**state["graph"])
        self.solver.failures = int(state["failures"])


def _check_sources(text_tokens: int, pair_rows: int, measure: int, least: int) -> None:
    """UserError where nothing would be measured, or too little of it."""
    if pair_rows < 2 or pair_rows & (pair_rows - 1):
        raise UserError(f"mixer.init_args.pair_rows is {pair_rows}: it must be a power of two, ≥ 2")
    if not text_tokens and not measure:
        raise UserError(
            "mixer.init_args.text_tokens and measure are 0: set one, for the kernel of domains"
        )
    if measure and measure < least:
        raise UserError(
            f"mixer.init_args.measure is {measure}: it must be 0 or ≥ skip + interval ({least})"
        )
