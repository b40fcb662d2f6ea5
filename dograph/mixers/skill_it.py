"""Skill-It: draws by losses and a graph of domains (Chen et al. 2023, arXiv 2307.14430)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dograph.errors import UserError, check_range, nearest
from dograph.mixers.base import BaseMixer
from dograph.signals.batch_signals import BatchSignals, ValidationLoss

Graph = Mapping[str, Mapping[str, float]]
"""How much training on a domain (the outer name) lowers the losses of others, by name."""
Losses = Mapping[str, Mapping[str, float | None]]
"""All domains' losses in nats after training on one domain (the outer name) alone."""


def graph_weights(prior: Tensor, graph: Tensor, losses: Tensor, rate: float) -> Tensor:
    """``α_s ∝ α_0s exp(η Σ_t A_st L_t)``.

    Args:
        prior: (S,) α_0 on the simplex; what is 0 stays 0.
        graph: (S, S) A ≥ 0.
        losses: (S,) L, in nats.
        rate: η ≥ 0.

    >>> losses, graph = torch.tensor([1.0, 3.0]), torch.eye(2)
    >>> graph_weights(torch.tensor([0.5, 0.5]), graph, losses, rate=0.5493)
    tensor([0.2500, 0.7500])
    """
    return torch.softmax(prior.log() + rate * (graph @ losses), dim=0)


def learnt_graph(losses: Tensor, start: float) -> Tensor:
    """``A_st = max(1 − L_st / L_0, 0)``: by what part training on s alone lowered the loss of t.

    Args:
        losses: (S, S) L in nats, what was trained on in rows.
        start: L_0 > 0, an untrained model's loss, the same for all domains.

    >>> learnt_graph(torch.tensor([[1.0, 5.0], [3.0, 2.0]]), start=4.0)
    tensor([[0.7500, 0.0000],
            [0.2500, 0.5000]])
    """
    return (1 - losses / start).clamp(min=0)


class SkillIt(BaseMixer):
    """Draws what lowers the losses that are still large, by a graph that is given or learnt.

    Weights are ``graph_weights`` of the losses of the last ``window`` validations, by mirror
    descent that starts anew from ``prior`` each time (arXiv 2307.14430). As in the public code,
    losses are 1 before the first validation, and the window's are summed; for a target their mean
    counts, and other domains' losses do not.

    Args:
        graph: A, by the name of what is trained on and of what it helps; pairs left out are 0.
            None: every domain helps itself alone, by 1.
        rate: η > 0; 0.1 to 0.5 in the public code's scripts.
        window: validations that count, ≥ 1; 3 published.
        update_every: optimiser steps between two updates, ≥ 1; best those between validations.
        prior: α_0 by name. None: uniform.
        losses_alone: of a run on each domain alone, to learn A from: ``learnt_graph`` with the loss
            of even guesses, ln V, as L_0. A stage's are ``${stages.NAME.losses}``.

    Attributes:
        validations: losses (S,) of those in the window, the newest last.
    """

    needs = frozenset({ValidationLoss()})

    def __init__(
        self,
        graph: Graph | None = None,
        rate: float = 0.5,
        window: int = 3,
        update_every: int = 1,
        prior: dict[str, float] | None = None,
        losses_alone: Losses | None = None,
    ) -> None:
        super().__init__(update_every=update_every, prior=prior)
        check_range("mixer.init_args.rate", rate, above=0)
        check_range("mixer.init_args.window", window, at_least=1)
        if graph and losses_alone:
            raise UserError("mixer.init_args has graph and losses_alone: give one of them")
        self.named_graph, self.losses_alone = graph, losses_alone
        self.rate, self.window = rate, window
        self.validations: list[Tensor] = []

    def initial_weights(self) -> Tensor:
        """(S,) by the graph, with losses of 1."""
        self.prior_weights = super().initial_weights()
        self.graph = self._graph()
        # Which domain is the worst is not known yet, so that then all count.
        alike = torch.ones(len(self.domains), dtype=torch.float64)
        return self._weights(alike, self.target.weights(self.domains))

    def reset(self) -> None:
        """Starts with no validation."""
        self.validations = []

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) by the last validations; as before until the first."""
        if self.validated_since(self.validations[-1] if self.validations else None):
            assert self.validation_loss is not None
            self.validations = [*self.validations, self.validation_loss.clone()][-self.window :]
        if not self.validations:
            return self.weights
        window = torch.stack(self.validations)
        losses = window.mean(dim=0) if self.target.mixture else window.sum(dim=0)
        return self._weights(losses, self.target.weights(self.domains, losses))

    def _weights(self, losses: Tensor, counts: Tensor) -> Tensor:
        """(S,) by (S,) losses, of which the target's count by (S,) weights of sum 1."""
        counted = torch.where(counts > 0, counts * (counts > 0).sum() * losses, 0.0)
        if not counted.isfinite().all():
            name = self.domains[int((~counted.isfinite()).nonzero()[0])]
            raise UserError(f"SkillIt needs the validation loss of {name}, which has none")
        return graph_weights(self.prior_weights, self.graph, counted, self.rate)

    def _graph(self) -> Tensor:
        """(S, S) A, what is trained on in rows; UserError for a name or number that cannot be."""
        if self.losses_alone:
            graph = self._learnt(self.losses_alone)
        elif self.named_graph is None:
            graph = torch.eye(len(self.domains), dtype=torch.float64)
        else:
            graph = torch.zeros(len(self.domains), len(self.domains), dtype=torch.float64)
            for source, helped in self.named_graph.items():
                for name, value in helped.items():
                    key = f"mixer.init_args.graph.{source}.{name}"
                    check_range(key, value, at_least=0)
                    graph[self._index(source, key), self._index(name, key)] = value
        wanted = self.target.weights(self.domains)
        if not (graph[self.trained] @ wanted).any():
            raise UserError(
                f"mixer.init_args.graph helps {self.target.label} by nothing that is trained on: "
                "name what does"
            )
        return graph

    def _learnt(self, losses_alone: Losses) -> Tensor:
        """(S, S) A from runs on single domains; 0 for what is not drawn or does not count."""
        if self.vocab_size < 2:
            raise UserError("SkillIt.setup needs vocab_size to learn a graph from losses")
        losses = torch.full((len(self.domains),) * 2, torch.inf, dtype=torch.float64)
        counts = self.target.weights(self.domains) > 0
        for index in self.prior_weights.where(self.trained, 0).nonzero().flatten().tolist():
            source = self.domains[index]
            if source not in losses_alone:
                there = f"of a run on {source} alone: add them, or give it a prior of 0"
                raise UserError(f"mixer.init_args.losses_alone has no losses {there}")
            for other in counts.nonzero().flatten().tolist():
                loss = losses_alone[source].get(self.domains[other])
                value = math.nan if loss is None else loss
                key = f"mixer.init_args.losses_alone.{source}.{self.domains[other]}"
                check_range(key, value, at_least=0)
                losses[index, other] = value
        return learnt_graph(losses, math.log(self.vocab_size))

    def _index(self, name: str, key: str) -> int:
        if name not in self.domains:
            raise UserError(f"{key}: {name!r} is no domain{nearest(name, self.domains)}")
        return self.domains.index(name)
