"""A mixer tried on made-up signals before any training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from dograph.errors import UserError
from dograph.mixers.base import BaseMixer
from dograph.signals.batch_signals import (
    BatchSignals,
    DomainGradients,
    EmbeddingGradients,
    ExcessLoss,
    Probe,
    Sketch,
    TokenGradients,
)

WIDTH = 64
"""Numbers of a made-up sketch."""


def dry_run(mixer: BaseMixer, batch_size: int) -> None:
    """Lets a copy of a mixer, which is set up, weigh and update once on made-up signals.

    The mixer and the global random state stay as they are. UserError if its weights would be off
    the simplex or of the wrong shape, or it keeps state that a resume would lose.
    """
    trial = copy.deepcopy(mixer)
    corpus = mixer.domains, mixer.domain_tokens
    trial.setup(*corpus, batch_size, mixer.vocab_size, mixer.target.value, mixer.unseen)
    first_update = (mixer.warmup // mixer.update_every + 1) * mixer.update_every
    signals = made_up_signals(mixer, batch_size, first_update - 1)
    with torch.random.fork_rng(devices=[]):
        signals.loss_weights = trial.checked_loss_weights(signals)
        trial.step(signals)
    lost = trial.lost_state()
    if lost:
        name, kind = lost[0], type(getattr(trial, lost[0])).__name__
        raise UserError(
            f"{type(mixer).__name__}.{name} is a {kind} that changes while training, and a resume "
            "would lose it: keep tensors, numbers, or lists, mappings and deques of these; or give "
            f"{kind} state_dict and load_state_dict; or name it in the class's not_saved"
        )


def made_up_signals(mixer: BaseMixer, batch_size: int, step: int) -> BatchSignals:
    """Random signals of every kind that a mixer needs, of all domains that it trains on in turn."""
    generator = torch.Generator().manual_seed(0)
    count = len(mixer.domains)
    drawn = (mixer.trained | (mixer.sampling_weights > 0)).nonzero().flatten()
    probed = [index for index, name in enumerate(mixer.domains) if mixer.probes(name)]
    signals = BatchSignals(
        step=step,
        domain=drawn[torch.arange(batch_size) % len(drawn)],
        sequence_loss=1 + torch.rand(batch_size, generator=generator),
        learning_rate=1e-3,
    )
    if mixer.request(Sketch):
        signals.sketch = torch.randn(batch_size, WIDTH, generator=generator)
    if mixer.request(Probe):
        signals.probe_domain = torch.tensor(2 * probed, dtype=torch.int64)
        if mixer.request(Sketch):
            signals.probe_sketch = torch.randn(2 * len(probed), WIDTH, generator=generator)
    if mixer.request(EmbeddingGradients):
        signals.token_gradients = _made_up_gradients(signals.domain, mixer, generator)
        if signals.probe_domain is not None and len(signals.probe_domain):
            made_up = _made_up_gradients(signals.probe_domain, mixer, generator)
            signals.probe_gradients = made_up
    if mixer.request(ExcessLoss):
        signals.excess_loss = torch.rand(batch_size, generator=generator)
    if mixer.request(DomainGradients):
        gradients = torch.randn(count, WIDTH, generator=generator)
        signals.domain_kernel = gradients @ gradients.T
    return signals


def _made_up_gradients(
    domain: Tensor, mixer: BaseMixer, generator: torch.Generator
) -> TokenGradients:
    request, tokens = mixer.request(EmbeddingGradients), 4
    assert request is not None
    ids = torch.randint(max(mixer.vocab_size, 1), (len(domain), tokens), generator=generator)
    gradients = torch.randn(len(domain), tokens, request.rank, generator=generator)
    return TokenGradients(domain, ids, gradients)
