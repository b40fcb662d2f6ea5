"""A mixer tried on made-up signals before any training."""

from __future__ import annotations

import copy
import io
import logging
import pickle
from operator import attrgetter
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dograph.errors import UserError
from dograph.mixers.base import BaseMixer
from dograph.mixers.declared import diagnostics_of, snapshot_of
from dograph.mixers.outside_state import outside_state
from dograph.mixers.random_state import (
    global_random_state,
    random_state_kept,
    set_global_random_state,
)
from dograph.mixers.state import changed_attributes, start_of
from dograph.mixers.user_code import first_line, mixer_errors
from dograph.signals.alignment import Alignment
from dograph.signals.batch_signals import (
    AlignmentProbe,
    BatchSignals,
    DomainGradients,
    DomainText,
    EmbeddingGradients,
    ExcessLoss,
    HeldOutLoss,
    Probe,
    Sketch,
    TokenGradients,
    ValidationLoss,
)

logger = logging.getLogger(__name__)
WIDTH = 64
"""Numbers of a made-up sketch."""


def dry_run(mixer: BaseMixer, batch_size: int) -> None:
    """Lets copies of a mixer, which is set up, weigh and update twice on made-up signals.

    The second time, one of them has been restored from the other's state, as a resumed run's is.
    The mixer and the global random states stay as they are. UserError if the mixer's code fails,
    its weights would be off the simplex or of the wrong shape, or it keeps state that a resume
    would lose; a warning where that is likely.
    """
    first = (mixer.warmup // mixer.update_every + 1) * mixer.update_every - 1
    with random_state_kept(), mixer_errors(mixer, "in the dry run"):
        trial, resumed = _copy(mixer, batch_size), _copy(mixer, batch_size)
        outside = outside_state(trial)
        before = start_of(outside)
        _step(trial, made_up_signals(mixer, batch_size, first))
        _check_attributes(trial)
        _restore(resumed, trial)
        later = made_up_signals(mixer, batch_size, first + mixer.update_every)
        random_state = global_random_state()
        expected = _step(trial, later)
        diagnostics_of(trial)
        snapshot_of(trial)
        set_global_random_state(random_state)
        restored = _step(resumed, later)
        _check_outside(mixer, before, all(map(torch.equal, restored, expected)))


def _copy(mixer: BaseMixer, batch_size: int) -> BaseMixer:
    """A copy that is set up; what a mixer need not save is shared where it cannot be copied."""
    memo: dict[int, Any] = {}
    for name, value in vars(mixer).items():
        if isinstance(value, ModuleType):
            memo[id(value)] = value
            continue
        try:
            copy.deepcopy(value, dict(memo))
        except Exception as error:
            if name not in mixer.not_saved:
                raise UserError(
                    f"{type(mixer).__name__}.{name} is a {type(value).__name__}, which cannot be "
                    f"copied ({first_line(error)}), nor saved in a checkpoint: make it where it is "
                    "used, or name it in the class's not_saved"
                ) from error
            memo[id(value)] = value
    trial = copy.deepcopy(mixer, memo)
    corpus = mixer.domains, mixer.domain_tokens
    target = mixer.target.value, mixer.unseen
    text, own = _made_up_text(mixer), (mixer.token_budget, mixer.delay)
    sizes = batch_size, mixer.vocab_size
    trial.setup(*corpus, *sizes, *target, text, *own, limits=mixer.limits)
    return trial


def _step(trial: BaseMixer, signals: BatchSignals) -> tuple[Tensor, Tensor]:
    """One step's loss weights and the domain weights after it."""
    if trial.request(ValidationLoss):
        losses = 2 + torch.arange(len(trial.domains)) * signals.sequence_loss.mean()
        trial.validated(dict(zip(trial.domains, losses.tolist(), strict=True)))
    signals.loss_weights = trial.checked_loss_weights(signals)
    trial.step(signals)
    return signals.loss_weights, trial.weights.clone()


def _check_attributes(trial: BaseMixer) -> None:
    """Raises UserError for an attribute that has changed and cannot be saved."""
    for name in trial.lost_state():
        kind = type(attrgetter(name)(trial)).__name__
        raise UserError(
            f"{type(trial).__name__}.{name} is a {kind} that changes while training, and a resume "
            "would lose it: keep tensors, numbers, or lists, mappings and deques of these; or give "
            f"{kind} state_dict and load_state_dict; or name it in the class's not_saved"
        )


def _check_outside(mixer: BaseMixer, before: dict[str, Any], alike: bool) -> None:
    """Raises UserError for values outside of the mixer that change and that its weights depend on.

    ``alike`` tells whether a restored mixer gave the same weights.
    """
    name = type(mixer).__name__
    changed = [
        what
        for what in changed_attributes(outside_state(mixer), before)
        if what.split()[0].rpartition(".")[2] not in mixer.not_saved
    ]
    lost = f"{name} changes {', '.join(changed)} while training, and a resume would lose it"
    remedy = "keep it in an attribute of self that reset sets, or name it in the class's not_saved"
    if changed and not alike:
        raise UserError(f"{lost}: {remedy}")
    if changed:
        logger.warning("%s if weights depend on it: %s", lost, remedy)
    elif not alike:
        logger.warning(
            "%s gives other weights after a resume than without one: it depends on something that "
            "no checkpoint holds (a file, the clock, a gradient)",
            name,
        )


def _restore(resumed: BaseMixer, trial: BaseMixer) -> None:
    """Restores a mixer from another's state as a checkpoint would hold it."""
    file, name = io.BytesIO(), type(trial).__name__
    try:
        torch.save(trial.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise UserError(
            f"{name}'s state cannot be loaded from a checkpoint, which must not run code "
            f"({first_line(error)}): have state_dict and get_extra_state return tensors, numbers, "
            "texts, and lists and mappings of these"
        ) from error
    try:
        resumed.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{name} cannot be restored from its own state ({' '.join(str(error).split())}): "
            "register all buffers and parameters in __init__ or reset"
        ) from error


def made_up_signals(mixer: BaseMixer, batch_size: int, step: int) -> BatchSignals:
    """Random signals of every kind that a mixer needs, of all domains that it trains on in turn."""
    generator = torch.Generator().manual_seed(step)
    count = len(mixer.domains)
    drawn = mixer.trained.nonzero().flatten()
    probed = [index for index, name in enumerate(mixer.domains) if mixer.probes(name)]
    signals = BatchSignals(
        step=step,
        domain=drawn[torch.arange(batch_size) % len(drawn)],
        sequence_loss=1 + torch.rand(batch_size, generator=generator),
        learning_rate=1e-3,
        peak_learning_rate=1e-3,
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
    if mixer.request(HeldOutLoss):
        signals.held_out_loss = 1 + torch.rand(count, generator=generator, dtype=torch.float64)
    if mixer.request(ExcessLoss):
        signals.excess_loss = torch.rand(batch_size, generator=generator)
    if mixer.request(DomainGradients):
        gradients = torch.randn(count, WIDTH, generator=generator)
        signals.domain_kernel = gradients @ gradients.T
        if signals.probe_domain is not None and len(signals.probe_domain):
            probe = torch.randn(WIDTH, generator=generator)
            signals.probe_products = torch.cat([gradients @ probe, (probe @ probe)[None]])
    if mixer.request(AlignmentProbe):
        signals.alignment = _made_up_alignment(mixer, probed, generator)
    return signals


def _made_up_alignment(
    mixer: BaseMixer, targets: list[int], generator: torch.Generator
) -> Alignment:
    count = len(mixer.domains)
    sources = torch.randn(count, WIDTH, generator=generator) * mixer.trained[:, None]
    probed = torch.tensor([index in targets for index in range(count)])
    directions = torch.randn(count, WIDTH, generator=generator) * probed[:, None]
    squares = sources.square().sum(dim=1), directions.square().sum(dim=1)
    losses = (1 + torch.rand(count, generator=generator)) * probed
    return Alignment(sources @ directions.T, *squares, losses)


def _made_up_text(mixer: BaseMixer) -> list[Tensor]:
    """(4, 5) random tokens of each domain, where the mixer asks for text."""
    if not mixer.request(DomainText):
        return []
    generator = torch.Generator().manual_seed(0)
    most = max(mixer.vocab_size, 1)
    return [torch.randint(most, (4, 5), generator=generator) for _ in mixer.domains]


def _made_up_gradients(
    domain: Tensor, mixer: BaseMixer, generator: torch.Generator
) -> TokenGradients:
    request, tokens = mixer.request(EmbeddingGradients), 4
    assert request is not None
    ids = torch.randint(max(mixer.vocab_size, 1), (len(domain), tokens), generator=generator)
    gradients = torch.randn(len(domain), tokens, request.rank, generator=generator)
    return TokenGradients(domain, ids, gradients)
