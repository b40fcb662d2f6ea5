"""What proxies share: means by domain, and losses that count by domain weights."""

from __future__ import annotations

import torch
from torch import Tensor

from dograph.signals.batch_signals import BatchSignals


def domain_counts(domain: Tensor, domains: int) -> Tensor:
    """(S,) int64 sequences of each of S ``domains`` among (B,) ``domain``, on the CPU."""
    return torch.bincount(domain.cpu(), minlength=domains)


def domain_means(values: Tensor, domain: Tensor, otherwise: Tensor) -> Tensor:
    """Mean of a number per sequence over each domain.

    Every sequence has as many tokens, so the mean over sequences is the mean over tokens.

    Args:
        values: (B,) one for each sequence.
        domain: (B,) int64, index of each sequence's domain.
        otherwise: (S,) what a domain without a sequence gets.

    Returns:
        (S,) float64 on the CPU.

    >>> domain_means(torch.tensor([1., 3.]), torch.tensor([1, 1]), torch.tensor([9., 9.])).tolist()
    [9.0, 2.0]
    """
    counts = domain_counts(domain, len(otherwise))
    sums = torch.zeros(len(otherwise), dtype=torch.float64)
    sums.index_add_(0, domain.cpu(), values.detach().to("cpu", torch.float64))
    return torch.where(counts > 0, sums / counts.clamp(min=1), otherwise.to(torch.float64))


def weighted_domains(factors: Tensor, signals: BatchSignals) -> Tensor:
    """(B,) sequence weights ``f_s / n_s``: each domain's *mean* loss counts ``f_s``.

    Args:
        factors: (S,) f ≥ 0.
        signals: its ``step_domain`` gives ``n_s``, the sequences of domain s in the whole optimiser
            step. A micro-batch's loss is divided by the number of micro-batches, which is undone.
    """
    counts = _step_counts(signals, len(factors))
    return (signals.micro_batches * factors / counts.clamp(min=1))[signals.domain.cpu()]


def weighted_sequences(factors: Tensor, signals: BatchSignals) -> Tensor:
    """(B,) sequence weights ``f_s / Σ_i f_{s(i)}``: every sequence, so every token, counts ``f_s``.

    Args:
        factors: (S,) f ≥ 0.
        signals: its ``step_domain`` gives the sum, over the whole optimiser step.
    """
    counts = _step_counts(signals, len(factors))
    total = (counts * factors).sum()
    return (signals.micro_batches * factors / total)[signals.domain.cpu()]


def _step_counts(signals: BatchSignals, domains: int) -> Tensor:
    return domain_counts(
        signals.domain if signals.step_domain is None else signals.step_domain, domains
    )
