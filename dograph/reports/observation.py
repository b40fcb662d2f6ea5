"""Windows of observed steps: gradient sketches of all mixers, and their domain graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dograph.graph.clusters import cluster_counts, cluster_means, cluster_sequences, cluster_spread
from dograph.graph.domain_graph import DomainGraph
from dograph.graph.kernel import gradient_kernel, squared_distances
from dograph.signals.batch_signals import BatchSignals


@dataclass
class Observed:
    """n sequences of a batch or a window, with (n,) human domains.

    Attributes:
        sketches: (n, k) gradient sketches.
        weights: (n,) how the losses counted, on the simplex.
    """

    sketches: Tensor
    domain: Tensor
    weights: Tensor


class ObservationWindow:
    """Collects sketched batches until ``take``; waits for no device.

    Only the latest batch is kept where sketches of different steps are not ``comparable``.
    """

    def __init__(self, comparable: bool = True) -> None:
        self.comparable = comparable
        self.batches: list[Observed] = []

    def add(self, signals: BatchSignals) -> None:
        """Adds a batch; ignores one without sketches."""
        if signals.sketch is None:
            return
        if not self.comparable:
            self.batches.clear()
        weights = signals.loss_weights
        if weights is None:
            weights = torch.full_like(signals.sequence_loss, 1 / signals.batch_size)
        self.batches.append(Observed(signals.sketch.detach(), signals.domain, weights))

    def take(self) -> Observed | None:
        """Returns the batches as one on the CPU and starts anew.

        None for an empty window, and for one with gradients that are not finite: drawing must not
        end a run that has diverged.
        """
        if not self.batches:
            return None
        batches, self.batches = self.batches, []
        weights = torch.cat([batch.weights.cpu() for batch in batches]).double()
        observed = Observed(
            sketches=torch.cat([batch.sketches.cpu() for batch in batches]),
            domain=torch.cat([batch.domain.cpu() for batch in batches]),
            weights=weights / weights.sum(),
        )
        return observed if bool(torch.isfinite(observed.sketches).all()) else None

    def state_dict(self) -> dict[str, Any]:
        """The batches so far."""
        batches = [{key: part.cpu() for key, part in vars(each).items()} for each in self.batches]
        return {"batches": batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues what ``state_dict`` gave."""
        self.batches = [Observed(**batch) for batch in state["batches"]]


def observed_graph(observed: Observed, clusters: int, seed: int) -> DomainGraph:
    """The domain graph of a window, its nodes weighted as their sequences counted in the loss.

    It makes mixers without a graph of their own comparable. At most n ``clusters`` are made, by
    K-means with a seed.
    """
    sketches = observed.sketches
    labels = cluster_sequences(sketches, clusters, seed=seed)
    means = cluster_means(sketches, labels)
    counts = cluster_counts(labels)
    weights = torch.zeros(len(counts), dtype=torch.float64)
    weights.index_add_(0, labels, observed.weights)
    return DomainGraph(
        kernel=gradient_kernel(means),
        distances=squared_distances(means),
        spread=cluster_spread(sketches, labels),
        counts=counts,
        labels=labels,
        weights=weights,
    )
