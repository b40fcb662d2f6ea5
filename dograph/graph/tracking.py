"""Clusters that keep their identity while sketches drift (ours; method 1b)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dograph.graph.clusters import fitted_labels

SAME = 0.5
"""Share of its sequences that a cluster must keep to be the same one."""


@dataclass(frozen=True)
class Change:
    """What became of a cluster.

    Attributes:
        kind: "birth", "death" or "merge".
        number: of the cluster.
        into: the cluster that a merged one went to.
    """

    kind: Literal["birth", "death", "merge"]
    number: int
    into: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} of {self.number}" + ("" if self.into is None else f" into {self.into}")


class TrackedClusters:
    """K-means, warm-started from the last centres (if there are K) and matched to them.

    New centres are matched to the last ones by optimal assignment of their squared distances. A
    pair is one cluster, with one number, if at least half of the sequences nearest to the old
    centre are now in the new cluster; else the old one has died, or merged into the cluster that
    half of its sequences went to, and the new one is born with a number that was never used.

    Args:
        clusters: K ≥ 1; fewer where the sketches are fewer or equal.
        seed: of the first K-means.

    Attributes:
        numbers: of the clusters, in the order of the labels.
        centres: (K, k) float64; None before the first update.
    """

    def __init__(self, clusters: int, seed: int) -> None:
        self.clusters, self.seed = clusters, seed
        self.numbers: list[int] = []
        self.centres: Tensor | None = None
        self._born = 1

    def update(self, sketches: Tensor) -> tuple[Tensor, list[Change]]:
        """Clusters a window anew.

        Args:
            sketches: (n, k), finite.

        Returns:
            (n,) int64 labels 0 … K' − 1, each in use, and what became of clusters. Labels are in
            the order of the clusters' numbers.
        """
        points = sketches.double().numpy()
        before, numbers = self.centres, self.numbers
        labels = self._fit(points)
        used, found = np.unique(labels, return_inverse=True)
        centres = np.stack([points[found == index].mean(axis=0) for index in range(len(used))])
        names, changes = self._named(points, found, centres, before, numbers)
        order = np.argsort(names)
        self.numbers = [int(names[index]) for index in order]
        self.centres = torch.from_numpy(centres[order])
        return torch.from_numpy(np.argsort(order)[found]), changes

    def _fit(self, points: Any) -> Any:
        count = min(self.clusters, len(points))
        warm = self.centres is not None and len(self.centres) == count
        start = self.centres.numpy() if warm and self.centres is not None else "k-means++"
        return fitted_labels(points, count, start, self.seed)

    def _named(
        self, points: Any, labels: Any, centres: Any, before: Tensor | None, numbers: list[int]
    ) -> tuple[list[int], list[Change]]:
        """The clusters' numbers, those of before where they are the same."""
        names = [-1] * len(centres)
        changes: list[Change] = []
        if before is not None:
            moved = _shares_moved(points, labels, before.numpy(), len(centres))
            distances = ((before.numpy()[:, None] - centres[None]) ** 2).sum(axis=2)
            for old, new in zip(*linear_sum_assignment(distances), strict=True):
                if moved[old, new] >= SAME:
                    names[new] = numbers[old]
        for new, name in enumerate(names):
            if name < 0:
                names[new] = self._born
                self._born += 1
                if before is not None:
                    changes.append(Change("birth", names[new]))
        if before is not None:
            for old, number in enumerate(numbers):
                if number not in names:
                    new = int(moved[old].argmax())
                    merged = moved[old, new] >= SAME
                    into = names[new] if merged else None
                    changes.append(Change("merge" if merged else "death", number, into))
        return names, changes

    def state_dict(self) -> dict[str, Any]:
        """Centres and numbers."""
        return {"numbers": list(self.numbers), "centres": self.centres, "born": self._born}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.numbers, self.centres = list(state["numbers"]), state["centres"]
        self._born = int(state["born"])


def _shares_moved(points: Any, labels: Any, before: Any, clusters: int) -> Any:
    """(old, new) share of the points nearest to each old centre that each new cluster has."""
    squares = (before**2).sum(axis=1)[None] - 2 * points @ before.T
    nearest = squares.argmin(axis=1)
    table = np.zeros((len(before), clusters))
    np.add.at(table, (nearest, labels), 1.0)
    return table / np.maximum(table.sum(axis=1, keepdims=True), 1)
