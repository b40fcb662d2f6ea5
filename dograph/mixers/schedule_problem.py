"""From the domains' kernel to the schedule's problem (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from dograph.graph.domain_graph import DomainGraph, affinity, edge_rows
from dograph.graph.kernel import kernel_distances, kernel_root
from dograph.graph.schedule_solver import ScheduleProblem
from dograph.mixers.schedule_settings import ProblemSettings

LEAST_COSINE = 0.1
"""Smallest cosine between the target's gradient and the prior's by which influences are scaled."""


def relative(kernel: Tensor, error: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """(S, S) kernel and error over ``α_0ᵀKα_0``, the size of the prior's own gradient.

    ``prior`` (S,) is α_0, 0 for domains that are not drawn.
    """
    drawn = prior > 0
    own = kernel[drawn][:, drawn]
    # Noise alone may make the mean of two halves' products negative: then nothing stands out.
    least = (1e-3 * own.abs().max() / len(own)).clamp(min=1e-30)
    size = (prior[drawn] @ own @ prior[drawn]).clamp(min=least)
    return kernel / size, error / size


def schedule_problem(
    kernel: Tensor,
    error: Tensor,
    prior: Tensor,
    mixture: Tensor,
    worth: Tensor,
    settings: ProblemSettings,
) -> tuple[ScheduleProblem, Tensor]:
    """The problem of the m domains that are drawn, and (m,) errors of their influences.

    The influence is ``c K(τ̂ − κ α_0)``, with the certainty c (``certainty``): as the solver counts
    curvature from the prior on, the objective is ``− ⟨Kτ̂, α⟩ + (κ/2) αᵀKα`` where c is 1.

    Args:
        kernel: (S, S) products of the domains' gradients.
        error: (S, S) its standard errors.
        prior: (S,) α_0, 0 for domains that are not drawn.
        mixture: (S,) τ, the target.
        worth: (S,) in [0, 1], what a domain's text is still worth after so many passes.
        settings: κ, ``least_spread`` and ``neighbours`` count.
    """
    kernel, error = relative(kernel, error, prior)
    drawn = prior > 0
    own, prior = kernel[drawn][:, drawn], prior[drawn]
    influence = (kernel @ mixture)[drawn]
    errors = (error.square() @ mixture.square()).sqrt()[drawn]
    # At the prior the target's gradient shall weigh as much as the mixture's own.
    norm = (mixture @ kernel @ mixture).clamp(min=0).sqrt()
    size = torch.maximum(influence @ prior, LEAST_COSINE * norm).clamp(min=1e-12)
    influence, errors = influence / size, errors / size
    influence = torch.where(influence > 0, influence * worth[drawn], influence)
    influence = influence - settings.kappa * own @ prior
    unsure = settings.least_spread**2 + prior @ errors.square()
    influence = influence * certainty(influence, prior, unsure)
    problem = ScheduleProblem(
        b=influence,
        R=kernel_root(own),
        laplacian_root=edge_rows(affinity(kernel_distances(own), settings.neighbours)),
        prior=prior,
    )
    return problem, errors


def parameters_of(problem: ScheduleProblem) -> dict[str, Tensor]:
    """What a problem of one's own is given, by name (``DoGraphSchedule``)."""
    return {
        "influence": problem.b,
        "root": problem.R,
        "pull": problem.R.T @ (problem.R @ problem.prior),
        "prior": problem.prior,
        "root_prior": problem.prior.rsqrt(),
    }


def certainty(influence: Tensor, prior: Tensor, unsure: Tensor) -> Tensor:
    """In [0, 1]: by how much influences shrink, since some of their spread tells nothing.

    ``max(0, 1 − σ²/s²)``, after James and Stein (1961), with the variance s² of the (m,) influences
    over the prior, and σ² ``unsure``.
    """
    spread = prior @ (influence - prior @ influence).square()
    return (1 - unsure / spread.clamp(min=1e-30)).clamp(min=0)


def graph_of_domains(kernel: Tensor, weights: Tensor, drawn: Tensor) -> DomainGraph:
    """The graph of the domains that are ``drawn`` (S,), one node each, with (S,) weights."""
    own = kernel[drawn][:, drawn]
    return DomainGraph(
        kernel=own,
        distances=kernel_distances(own),
        spread=torch.zeros(len(own), dtype=torch.float64),
        counts=torch.ones(len(own), dtype=torch.int64),
        labels=torch.arange(len(own)),
        weights=weights[drawn],
    )
