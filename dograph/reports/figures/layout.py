"""Layout of nodes and labels, so that none hides another."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
ELLIPSE = 1.12


def squared_distance_plane(squared: Floats) -> tuple[Floats, float]:
    """Classical multidimensional scaling: points whose squared distances come closest.

    Args:
        squared: (m, m) squared distances.

    Returns:
        (m, 2) centred points and the share of the squared distances that the plane keeps.
    """
    nodes = len(squared)
    centring = np.eye(nodes) - 1 / nodes
    inner = -0.5 * centring @ ((squared + squared.T) / 2) @ centring
    values, vectors = np.linalg.eigh(inner)
    values = np.clip(values[::-1], 0, None)
    vectors = vectors[:, ::-1]
    points = np.zeros((nodes, 2))
    taken = min(2, nodes)
    points[:, :taken] = vectors[:, :taken] * np.sqrt(values[:taken])
    # An eigenvector's sign is arbitrary; fixed, so that one figure resembles the next.
    points *= np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    total = float(values.sum())
    return points, float(values[:2].sum()) / total if total > 0 else 1.0


def scaled_to_fit(points: Floats, room: Floats) -> Floats:
    """(m, 2) points, centred and enlarged alike in both directions to reach ``room`` (2,)."""
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = np.abs(points - middle).max(axis=0)
    if reach.max() <= 1e-12:
        return np.zeros_like(points)
    with np.errstate(divide="ignore"):
        return (points - middle) * float((room / reach).min())


def boxes_apart(centres: Floats, halves: Floats, room: Floats, rounds: int = 400) -> Floats:
    """Moves overlapping boxes in small steps until they are apart; others stay.

    A box counts as the ellipse just larger than it is wide and high, so that it moves away in
    the direction it lies in, and neighbours stay neighbours.

    Args:
        centres: (m, 2).
        halves: (m, 2) half widths and half heights.
        room: (2,) half width and half height of the page, which is centred on 0.
        rounds: at most so many steps.

    Returns:
        (m, 2) new centres, on the page; boxes that do not all fit on it still overlap.
    """
    nodes = len(centres)
    angles = GOLDEN_ANGLE * np.arange(nodes)
    # Boxes on one spot have no direction to leave in: a sunflower's spiral gives each its own.
    spiral = np.sqrt(np.arange(nodes))[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    places = centres + 1e-2 * halves.mean(axis=0) * spiral
    wanted = ELLIPSE * (halves[:, None] + halves[None, :])
    farthest = np.maximum(room - halves, 0)
    for _ in range(rounds):
        offsets = places[:, None] - places[None, :]
        nearness = np.linalg.norm(offsets / wanted, axis=2) + 1e-9
        np.fill_diagonal(nearness, np.inf)
        short = np.clip(1 - nearness, 0, None)
        if short.max() < 1e-2:
            break
        moves = 0.25 * (short / nearness)[:, :, None] * offsets
        places = np.clip(places + moves.sum(axis=1), -farthest, farthest)
    return places


def spaced(heights: Floats, distance: float) -> Floats:
    """(m,) heights, moved as little as keeps any two ``distance`` apart, order unchanged.

    Least squares under order constraints: neighbours that collide are pooled at their mean.
    """
    order = np.argsort(heights, kind="stable")
    offsets = distance * np.arange(len(heights))
    pools: list[tuple[float, int]] = []
    for value in heights[order] - offsets:
        mean, size = float(value), 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    placed = np.empty(len(heights))
    placed[order] = np.concatenate([np.full(size, mean) for mean, size in pools]) + offsets
    return placed
