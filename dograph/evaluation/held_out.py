"""Losses of the validation sequences of every domain, one number a sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dograph.data.data_mixer import EvenlySpaced
from dograph.data.domains import DomainSequences, MixtureDataset
from dograph.evaluation.target import Subject
from dograph.evaluation.text_bytes import TextBytes


@dataclass(frozen=True)
class HeldOut:
    """What n sequences of one domain cost.

    Attributes:
        domain: its name.
        nats: (n,) float64, losses summed over each sequence's tokens.
        tokens: predicted in every sequence.
        bytes: (n,) of the text predicted.
        train_tokens: of the domain, in the store.
    """

    domain: str
    nats: npt.NDArray[np.float64]
    tokens: int
    bytes: npt.NDArray[np.int64]
    train_tokens: int


def open_domains(subject: Subject) -> list[DomainSequences]:
    """The validation sequences of every domain of the store.

    Raises:
        UserError: for a domain without a whole sequence.
    """
    names = [entry.name for entry in subject.store.domains]
    return [DomainSequences(subject.store, name, "validation", subject.context) for name in names]


@torch.inference_mode()
def held_out_losses(
    subject: Subject,
    domains: list[DomainSequences],
    sequences: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda done: None,
) -> list[HeldOut]:
    """The losses of the sequences that a run validates on: evenly spaced over each domain.

    Args:
        subject: model and store.
        domains: as ``open_domains`` gives them.
        sequences: of each domain, ≥ 1; fewer where it has no more.
        batch_size: ≥ 1.
        advance: called with the number of sequences done.
    """
    dataset, counted = MixtureDataset(domains), TextBytes(subject.store)
    found = []
    for index, domain in enumerate(domains):
        nats, sizes = [], []
        for picks in EvenlySpaced(index, len(domain), sequences, batch_size, 0, 1):
            tokens = dataset.__getitems__(picks).tokens
            losses = subject.model.token_losses(tokens.to(subject.model.device))
            nats.append(losses.double().sum(dim=1).cpu().numpy())
            sizes.append(counted(tokens.numpy()))
            advance(len(picks))
        train_tokens = subject.store.entry(domain.domain).train_tokens
        found.append(
            HeldOut(
                domain.domain,
                np.concatenate(nats),
                subject.context,
                np.concatenate(sizes),
                train_tokens,
            )
        )
    return found
