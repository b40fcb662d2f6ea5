"""Clusters that keep their identity while sketches drift (ours; docs/method.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dograph.graph.clusters import kmeans_labels

KEPT_SHARE = 0.5
"""Share of its sequences that a cluster must keep to be the same one."""


@dataclass(frozen=True)
class Change:
    """A cluster's birth, death or merge.

    Attributes:
        number: the cluster's number.
        into: number of the cluster that a merged one joined.
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
        seed: seed of the first K-means.

    Attributes:
        numbers: the clusters' numbers, in the order of the labels.
        centres: (K, k) float64; None before the first update.
    """

    def __init__(self, clusters: int, seed: int) -> None:
        self.clusters, self.seed = clusters, seed
        self.numbers: list[int] = []
        self.centres: Tensor | None = None
        self._next = 1

    def update(self, sketches: Tensor) -> tuple[Tensor, list[Change]]:
        """Clusters a window's (n, k) finite sketches anew.

        Returns:
            (n,) int64 labels 0 … K' − 1, each in use, in the order of the clusters' numbers; and
            the changes.
        """
        points = sketches.double().numpy()
        count = min(self.clusters, len(points))
        warm = self.centres is not None and len(self.centres) == count
        start = self.centres.numpy() if warm and self.centres is not None else "k-means++"
        raw = kmeans_labels(points, count, start, self.seed)
        used, labels = np.unique(raw, return_inverse=True)
        centres = np.stack([points[labels == index].mean(axis=0) for index in range(len(used))])
        numbers, changes = self._numbered(points, labels, centres)
        order = np.argsort(numbers)
        self.numbers = [int(numbers[index]) for index in order]
        self.centres = torch.from_numpy(centres[order])
        return torch.from_numpy(np.argsort(order)[labels]), changes

    def _numbered(self, points: Any, labels: Any, centres: Any) -> tuple[list[int], list[Change]]:
        """Numbers of the new clusters, the old ones where they are the same, and the changes."""
        if self.centres is None:
            return [self._new_number() for _ in centres], []
        before = self.centres.numpy()
        moved = _shares_moved(points, labels, before, len(centres))
        distances = ((before[:, None] - centres[None]) ** 2).sum(axis=2)
        numbers = [0] * len(centres)
        for old, new in zip(*linear_sum_assignment(distances), strict=True):
            if moved[old, new] >= KEPT_SHARE:
                numbers[new] = self.numbers[old]
        changes = []
        for new, number in enumerate(numbers):
            if not number:
                numbers[new] = self._new_number()
                changes.append(Change("birth", numbers[new]))
        for old, number in enumerate(self.numbers):
            if number not in numbers:
                new = int(moved[old].argmax())
                merged = moved[old, new] >= KEPT_SHARE
                into = numbers[new] if merged else None
                changes.append(Change("merge" if merged else "death", number, into))
        return numbers, changes

    def _new_number(self) -> int:
        self._next += 1
        return self._next - 1

    def state_dict(self) -> dict[str, Any]:
        """Centres and numbers."""
        return {"numbers": list(self.numbers), "centres": self.centres, "born": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.numbers, self.centres = list(state["numbers"]), state["centres"]
        self._next = int(state["born"])


def _shares_moved(points: Any, labels: Any, before: Any, clusters: int) -> Any:
    """(old, new) share of the points nearest to each old centre that each new cluster has."""
    squares = (before**2).sum(axis=1)[None] - 2 * points @ before.T
    nearest = squares.argmin(axis=1)
    table = np.zeros((len(before), clusters))
    np.add.at(table, (nearest, labels), 1.0)
    return table / np.maximum(table.sum(axis=1, keepdims=True), 1)
