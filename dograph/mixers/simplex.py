"""Weights on the simplex: checked, and read by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dograph.errors import UserError
from dograph.files.levels import levels_of, split_levels

SIMPLEX_TOLERANCE = 1e-4


def as_weights(values: Any, count: int, name: str, each: str) -> Tensor:
    """(count,) float64 on the CPU from what a mixer returned, its values unchecked.

    Args:
        values: (count,) a real tensor of any type and device, a numpy array, or a list of numbers.
        count: how many weights there must be.
        name: what messages call the values.
        each: what has one weight, e.g. "domain".
    """
    remedy = f"return a tensor of {count}, one weight for each {each}"
    if isinstance(values, list | tuple):
        try:
            values = torch.tensor([float(value) for value in values], dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name} is a list of what are not numbers: {remedy}") from error
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        values = torch.from_numpy(values.astype(np.float64))
    if not isinstance(values, Tensor) or values.is_complex():
        kind = "None" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{name} is {kind}: {remedy}")
    if values.shape != (count,):
        raise UserError(f"{name} has shape {tuple(values.shape)}: {remedy}")
    return values.detach().to_dense().to("cpu", torch.float64)


def on_simplex(weights: Tensor, name: str) -> Tensor:
    """(n,) float64 weights on the CPU, checked to 1e-4 and without rounding.

    Args:
        weights: (n,) any floating type.
        name: what messages call them.
    """
    exact = weights.detach().to("cpu", torch.float64)
    if not torch.isfinite(exact).all():
        raise UserError(f"{name} has a value that is not finite: {exact.tolist()}")
    if exact.min() < -SIMPLEX_TOLERANCE or abs(exact.sum().item() - 1) > SIMPLEX_TOLERANCE:
        raise UserError(
            f"{name} is off the simplex (smallest {exact.min().item():.6g}, sum "
            f"{exact.sum().item():.6g}): return values ≥ 0 that sum to 1, "
            "e.g. `weights / weights.sum()`"
        )
    exact = exact.clamp(min=0)
    return exact / exact.sum()


def admissible(weights: Tensor, trained: Tensor, floor: float, name: str) -> Tensor:
    """(S,) weights on the simplex: 0 for unseen domains, at least the floor for all others.

    Args:
        weights: (S,) float64 on the simplex.
        trained: (S,) bool, False for the unseen domains.
        floor: in [0, 1): the smallest weight times the number of domains that are trained on.
        name: what messages call the weights.
    """
    if not trained.all():
        kept = weights * trained
        if not kept.sum() > 0:
            raise UserError(f"{name} gives weight to domains of data.unseen alone")
        weights = kept / kept.sum()
    return floor * trained.double() / trained.sum() + (1 - floor) * weights


def part_of_simplex(weights: Tensor, name: str, most: int) -> Tensor:
    """Weights as they are, once checked: finite, ≥ 0, with a sum in [0, ``most``]."""
    total = weights.sum().item()
    if weights.min() < 0 or not total <= most + SIMPLEX_TOLERANCE:  # also where NaN
        raise UserError(
            f"{name} has sum {total:.6g} and smallest value {weights.min().item():.6g}: return "
            f"finite values ≥ 0 with a sum in [0, {most}]"
        )
    return weights.float()


def weights_by_name(
    weights: Mapping[str, float] | None,
    domains: Sequence[str],
    key: str,
    unseen: Sequence[str] = (),
    tokens: Sequence[float] | None = None,
) -> Tensor:
    """(S,) weights in the order of ``domains``, normalised to sum 1.

    Args:
        weights: a number ≥ 0 for each domain, by name; a level's name stands for all domains below
            it, which share its weight by their tokens. None: uniform.
        domains: the S domain names.
        key: what messages call the mapping.
        unseen: domains that may be left out, with weight 0.
        tokens: (S,) training tokens. None: domains below a level share evenly.
    """
    if weights is None:
        return torch.full((len(domains),), 1 / len(domains), dtype=torch.float64)
    if levels_of(domains):
        even = [1.0] * len(domains) if tokens is None else tokens
        sizes = [0.0 if d in unseen else n for d, n in zip(domains, even, strict=True)]
        weights = split_levels(weights, domains, sizes, key)
    weights = {**dict.fromkeys(unseen, 0.0), **weights}
    unknown, missing = set(weights) - set(domains), set(domains) - set(weights)
    if unknown or missing:
        raise UserError(
            f"{key} must name every domain once: unknown {sorted(unknown)}, "
            f"missing {sorted(missing)}; the corpus has {list(domains)}"
        )
    values = [float(weights[name]) for name in domains]
    if (
        not all(math.isfinite(value) and value >= 0 for value in values)
        or not 0 < sum(values) < math.inf
    ):
        raise UserError(
            f"{key} must hold finite numbers ≥ 0 with a finite sum above 0, got {values}"
        )
    exact = torch.tensor(values, dtype=torch.float64)
    return exact / exact.sum()
