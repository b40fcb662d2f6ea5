"""Losses of every domain's validation sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dograph.data.data_mixer import evenly_spaced
from dograph.data.domains import DomainSequences, MixtureDataset
from dograph.evaluation.evaluated_model import EvaluatedModel
from dograph.evaluation.text_bytes import TextBytes, why_no_bits_per_byte


@dataclass(frozen=True)
class HeldOut:
    """Losses of n sequences of one domain.

    Attributes:
        nats: (n,) float64, losses summed over each sequence's tokens.
        tokens: number of tokens predicted in every sequence.
        bytes: (n,) bytes of the predicted text; None if the tokenizer loses text.
        train_tokens: the domain's training tokens in the store.
    """

    domain: str
    nats: npt.NDArray[np.float64]
    tokens: int
    bytes: npt.NDArray[np.int64] | None
    train_tokens: int


def open_domains(evaluated: EvaluatedModel) -> list[DomainSequences]:
    """Every domain's validation sequences; raises UserError for a domain without a whole one."""
    names = [entry.name for entry in evaluated.store.domains]
    return [
        DomainSequences(evaluated.store, name, "validation", evaluated.context) for name in names
    ]


@torch.inference_mode()
def held_out_losses(
    evaluated: EvaluatedModel,
    domains: list[DomainSequences],
    sequences: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda done: None,
) -> list[HeldOut]:
    """Losses of the sequences that a run validates on: evenly spaced over each domain.

    Args:
        evaluated: model and store.
        domains: from ``open_domains``.
        sequences: number per domain; a smaller domain gives all it has.
        batch_size: sequences per forward.
        advance: called with the number of sequences done.
    """
    dataset, store = MixtureDataset(domains), evaluated.store
    counted = None if why_no_bits_per_byte(store) else TextBytes(store)
    held_out = []
    for index, domain in enumerate(domains):
        nats, sizes = [], []
        for picks in evenly_spaced(index, len(domain), sequences, batch_size):
            tokens = dataset.__getitems__(picks).tokens
            losses = evaluated.model.token_losses(tokens.to(evaluated.model.device))
            nats.append(losses.double().sum(dim=1).cpu().numpy())
            if counted is not None:
                sizes.append(counted(tokens.numpy(), domain.domain))
            advance(len(picks))
        held_out.append(
            HeldOut(
                domain.domain,
                np.concatenate(nats),
                evaluated.context,
                np.concatenate(sizes) if sizes else None,
                store.entry(domain.domain).train_tokens,
            )
        )
    return held_out
