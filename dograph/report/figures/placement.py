"""Where the nodes of a graph and their labels go on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HALF_WIDTH, HALF_HEIGHT = 1.30, 0.96
NODE_SCALE, SMALLEST_RADIUS = 0.27, 0.02
GAP = 0.05
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
CHARACTER_WIDTH, LINE_HEIGHT = 0.026, 0.056


def squared_mmd_plane(squared: Floats) -> tuple[Floats, float]:
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


def node_radii(weights: Floats) -> Floats:
    """(m,) radii whose areas are as the weights, no node too small to be seen."""
    return np.maximum(NODE_SCALE * np.sqrt(np.clip(weights, 0, None)), SMALLEST_RADIUS)


def scaled_to_view(points: Floats, radii: Floats) -> Floats:
    """(m, 2) points, enlarged alike in both directions until they fill the page's middle."""
    margin = float(radii.max()) + 2.5 * LINE_HEIGHT
    room = np.array([HALF_WIDTH - margin - 0.08, HALF_HEIGHT - margin])
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = np.abs(points - middle).max(axis=0)
    if reach.max() <= 1e-12:
        return np.zeros_like(points)
    with np.errstate(divide="ignore"):
        return (points - middle) * float((room / reach).min())


def pushed_apart(points: Floats, radii: Floats, rounds: int = 300) -> Floats:
    """Moves overlapping nodes just so far that none covers another; others stay.

    Args:
        points: (m, 2).
        radii: (m,).
        rounds: at most so many small moves.
    """
    nodes = len(points)
    angles = GOLDEN_ANGLE * np.arange(nodes)
    # Nodes on one spot have no direction to leave in: a sunflower's spiral gives each its own.
    spiral = np.sqrt(np.arange(nodes))[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    places = points + 1e-4 * spiral
    wanted = radii[:, None] + radii[None, :] + GAP
    np.fill_diagonal(wanted, 0)
    room = np.array([HALF_WIDTH - 0.2, HALF_HEIGHT - 0.16])
    for _ in range(rounds):
        offsets = places[:, None] - places[None, :]
        lengths = np.linalg.norm(offsets, axis=2) + 1e-12
        overlap = np.clip(wanted - lengths, 0, None)
        if overlap.max() < 1e-3:
            break
        moves = 0.3 * (overlap / lengths)[:, :, None] * offsets
        places = np.clip(places + moves.sum(axis=1), -room, room)
    return places


def label_places(points: Floats, radii: Floats, texts: Sequence[str]) -> list[tuple[float, float]]:
    """A place beside each node where its label covers least of nodes and other labels.

    Args:
        points: (m, 2) centres of the nodes.
        radii: (m,).
        texts: m labels of one or more lines.

    Returns:
        Centres of the labels.
    """
    boxes = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(points, radii, strict=True)]
    places: list[tuple[float, float]] = []
    for (x, y), radius, text in zip(points, radii, texts, strict=True):
        lines = text.split("\n")
        half_width = CHARACTER_WIDTH * max(map(len, lines)) / 2
        half_height = LINE_HEIGHT * len(lines) / 2
        candidates = []
        for turn, angle in enumerate(np.deg2rad([-90, 90, 0, 180, -45, -135, 45, 135])):
            across, up = math.cos(angle), math.sin(angle)
            centre_x = x + across * (radius + half_width + 0.01)
            centre_y = y + up * (radius + half_height + 0.005)
            box = (
                centre_x - half_width,
                centre_y - half_height,
                centre_x + half_width,
                centre_y + half_height,
            )
            covered = sum(_overlap(box, other) for other in boxes) + 10 * _outside(box)
            candidates.append((round(covered, 6), turn, (centre_x, centre_y), box))
        _, _, place, box = min(candidates)
        boxes.append(box)
        places.append(place)
    return places


Box = tuple[float, float, float, float]


def _overlap(one: Box, other: Box) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(up, 0.0)


def _outside(box: Box) -> float:
    """How far a box sticks out of the page."""
    return (
        max(0.0, -HALF_WIDTH - box[0])
        + max(0.0, box[2] - HALF_WIDTH)
        + max(0.0, -HALF_HEIGHT - box[1])
        + max(0.0, box[3] - HALF_HEIGHT)
    )
