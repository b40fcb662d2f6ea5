"""What training tells a mixer, and the requests by which a mixer asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dograph.signals.alignment import Alignment


@dataclass(frozen=True)
class Sketch:
    """Requests a gradient sketch of every sequence: ``BatchSignals.sketch``.

    Attributes:
        across_steps: whether sketches of different steps are compared, so that they need one
            projection for the whole run.
    """

    across_steps: bool = False
    costs: ClassVar[str] = "a sketch of each sequence's gradient in the backward"


@dataclass(frozen=True)
class ExcessLoss:
    """Requests token losses above a frozen reference model's: ``BatchSignals.excess_loss``.

    Attributes:
        reference: path of the reference model's checkpoint.
    """

    reference: str
    costs: ClassVar[str] = "a reference model's forward in each step"


@dataclass(frozen=True)
class EmbeddingGradients:
    """Requests every sequence's gradient at its tokens' embeddings, where ``needs_at`` says so.

    ``BatchSignals.token_gradients`` holds them, from training's own backward.

    Attributes:
        rank: numbers a token, ≥ 1.
    """

    rank: int
    costs: ClassVar[str] = "gradients at the token embeddings"


@dataclass(frozen=True)
class DomainText:
    """Requests text of every domain before the first step: ``BaseMixer.text``.

    Attributes:
        tokens: at most so many of each domain, evenly spread over its training split, ≥ 1.
    """

    tokens: int
    costs: ClassVar[str] = "some text of each domain, read before training"


@dataclass(frozen=True)
class Probe:
    """Requests signals of held-out sequences with the step before each update.

    They are of the kinds that the mixer asks for: ``BatchSignals.probe_sketch`` with ``Sketch``,
    ``BatchSignals.probe_gradients`` with ``EmbeddingGradients``, ``BatchSignals.probe_products``
    with ``DomainGradients``.

    Attributes:
        held_out: sequences of each probed domain that are never trained on, ≥ 1. An unseen
            domain gives up to 4,096.
        per_update: of these, how many of each domain one probe takes, 1 … ``held_out``.
        domains: names of the probed domains. None: those of the run's target.
        by_target: whether ``per_update`` counts all domains' sequences together, drawn by the
            target's weights: their mean is the target's. A domain then holds out no more than a
            tenth of its sequences, but ``per_update`` at least.
    """

    held_out: int
    per_update: int
    domains: tuple[str, ...] | None = None
    by_target: bool = False
    costs: ClassVar[str] = "a forward and backward of held-out sequences before each update"


@dataclass(frozen=True)
class AlignmentProbe(Probe):
    """Requests inner products of sources' and targets' gradients with the step before each update.

    ``BatchSignals.alignment`` holds them. The targets are the probed domains, by held-out
    sequences; the sources all that are trained on, by as many of their training sequences, whether
    or not the batch drew any.
    """

    costs: ClassVar[str] = "gradients of held-out and of training sequences before each update"


@dataclass(frozen=True)
class DomainGradients:
    """Requests inner products of the domains' exact gradients: ``BatchSignals.domain_kernel``."""

    costs: ClassVar[str] = "a backward for each domain in each step"


@dataclass(frozen=True)
class ValidationLoss:
    """Requests the domains' losses at the last validation: ``BaseMixer.validation_loss``."""

    costs: ClassVar[str] = "a validation for each update"


@dataclass(frozen=True)
class HeldOutLoss:
    """Requests the domains' losses after the steps that ``needs_at`` names: ``held_out_loss``.

    They are of sequences that are validated on, and no validation of the trainer's is needed.

    Attributes:
        sequences: evenly spaced sequences of each domain, ≥ 1. None: those of a validation.
    """

    sequences: int | None = None
    costs: ClassVar[str] = "forwards of held-out sequences of every domain at some steps"


Request = (
    Sketch
    | ExcessLoss
    | Probe
    | DomainGradients
    | EmbeddingGradients
    | DomainText
    | ValidationLoss
    | HeldOutLoss
)

REQUESTED_BY = {
    "sketch": "Sketch()",
    "excess_loss": "ExcessLoss(reference)",
    "domain_kernel": "DomainGradients()",
    "token_gradients": "EmbeddingGradients(rank)",
    "probe_sketch": "Sketch() and Probe(...)",
    "probe_gradients": "EmbeddingGradients(rank) and Probe(...)",
    "probe_products": "DomainGradients() and Probe(...)",
    "probe_domain": "Probe(...)",
    "alignment": "AlignmentProbe(held_out, per_update)",
    "held_out_loss": "HeldOutLoss()",
}
"""By signal, what a mixer's ``needs`` must hold to get it."""


@dataclass
class TokenGradients:
    """Gradients of n sequences' mean losses at the embeddings of their T tokens.

    Attributes:
        domain: (n,) int64, index of each sequence's domain.
        tokens: (n, T) int64.
        gradients: (n, T, r) float32.
    """

    domain: Tensor
    tokens: Tensor
    gradients: Tensor


@dataclass
class BatchSignals:
    """What a mixer learns of B sequences of all ranks, all of it detached.

    Before the backward that is one micro-batch, after the optimiser step the whole batch.

    Attributes:
        step: optimiser steps done before this batch.
        domain: (B,) int64, index of each sequence's domain.
        sequence_loss: (B,) float32, mean token loss in nats.
        sketch: (B, k) float32 gradient sketches, on ``Sketch``.
        loss_weights: (B,) float32, how the losses were weighted; known once weighted.
        excess_loss: (B,) float32, mean over tokens of ``max(ℓ − ℓ_reference, 0)`` in nats, on
            ``ExcessLoss``.
        domain_kernel: (S, S) float32, ``⟨G_s, G_t⟩`` of the gradients of the domains' mean losses,
            on ``DomainGradients``; zero for an absent domain. With several micro-batches it is
            there only once all of them are done.
        token_gradients: gradients at the token embeddings, on ``EmbeddingGradients``; known after
            the backward.
        probe_sketch: (p, k) float32 sketches of held-out sequences, on ``Probe`` and ``Sketch``.
        probe_gradients: their gradients at the token embeddings, on ``Probe`` and
            ``EmbeddingGradients``.
        probe_products: (S + 1,) float32 ``⟨G_s, G⟩`` of every domain, then ``⟨G, G⟩``, with G the
            gradient of their mean loss, on ``Probe`` and ``DomainGradients``.
        probe_domain: (p,) int64, their domains.
        alignment: how sources' gradients lie to targets', on ``AlignmentProbe``.
        step_domain: (n,) int64, domains of all sequences of this optimiser step, coming
            micro-batches included. None: those of ``domain``.
        learning_rate: of this optimiser step.
        peak_learning_rate: that the run's schedule starts from; a step's is a part of it.
        sequence_tokens: tokens that a sequence trains on, T.
        domain_loss: (S,) float64, each domain's mean token loss in nats since the last update;
            its last known value where it was absent, the known domains' mean where it was never
            drawn. Known in ``update``.
        held_out_loss: (S,) float64, each domain's mean token loss in nats on held-out sequences,
            after this step, on ``HeldOutLoss``. Known in ``update``.
        drawn_before: (S,) float64 sequences of each domain that the run has drawn by the time new
            weights take effect. Known in ``update`` where a DataMixer draws.
    """

    step: int
    domain: Tensor
    sequence_loss: Tensor
    sketch: Tensor | None = None
    loss_weights: Tensor | None = None
    excess_loss: Tensor | None = None
    domain_kernel: Tensor | None = None
    token_gradients: TokenGradients | None = None
    probe_sketch: Tensor | None = None
    probe_gradients: TokenGradients | None = None
    probe_products: Tensor | None = None
    probe_domain: Tensor | None = None
    alignment: Alignment | None = None
    step_domain: Tensor | None = None
    learning_rate: float = 0.0
    peak_learning_rate: float = 0.0
    sequence_tokens: int = 1
    domain_loss: Tensor | None = None
    held_out_loss: Tensor | None = None
    drawn_before: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of sequences B."""
        return self.domain.numel()

    @property
    def micro_batches(self) -> int:
        """Parts of this size that the optimiser step's batch has."""
        return 1 if self.step_domain is None else self.step_domain.numel() // self.domain.numel()

    @property
    def finite(self) -> bool:
        """Whether every loss and signal is; waits for the device, once."""
        signals = self.sketch, self.excess_loss, self.domain_kernel
        probed = self.probe_sketch, self.probe_products
        given = [self.sequence_loss, *(each for each in (*signals, *probed) if each is not None)]
        if self.probe_gradients is not None:
            given.append(self.probe_gradients.gradients)
        if self.alignment is not None:
            given += vars(self.alignment).values()
        checks = [signal.isfinite().all().to(self.sequence_loss.device) for signal in given]
        return bool(torch.stack(checks).all())

    def copy(self) -> BatchSignals:
        """The same signals in tensors of their own, for code that may change them in place."""
        values = {name: _copied(value) for name, value in vars(self).items()}
        return replace(self, **values)

    def even_weights(self) -> Tensor:
        """(B,) float32 1/B for every sequence, whatever type the model's numbers have."""
        return torch.full((self.batch_size,), 1 / self.batch_size, dtype=torch.float32)

    def by_domain(self, values: Tensor, absent: Tensor) -> Tensor:
        """(S,) float64 mean over each domain's sequences, on the CPU.

        Every sequence has as many tokens, so a mean over sequences is one over tokens.

        Args:
            values: (B,) a number for each sequence.
            absent: (S,) what a domain without a sequence gets.

        >>> signals = BatchSignals(0, torch.tensor([1, 1]), torch.tensor([1.0, 3.0]))
        >>> signals.by_domain(signals.sequence_loss, absent=torch.tensor([9.0, 9.0])).tolist()
        [9.0, 2.0]
        """
        counts = count_domains(self.domain, len(absent))
        sums = torch.zeros(len(absent), dtype=torch.float64)
        sums.index_add_(0, self.domain.cpu(), values.detach().to("cpu", torch.float64))
        return torch.where(counts > 0, sums / counts.clamp(min=1), absent.to(torch.float64))

    def per_domain(self, factors: Tensor) -> Tensor:
        """(B,) loss weights ``f_s / n_s``: each domain's *mean* loss counts ``f_s``.

        ``n_s`` counts domain s in the whole optimiser step. A micro-batch's loss is divided by the
        number of micro-batches, which is undone here.

        Args:
            factors: (S,) f ≥ 0.
        """
        counts = self._step_counts(len(factors))
        return (self.micro_batches * factors / counts.clamp(min=1))[self.domain.cpu()]

    def per_sequence(self, factors: Tensor) -> Tensor:
        """(B,) loss weights ``f_s / Σ_i f_{s(i)}``: every sequence, so every token, counts ``f_s``.

        The sum runs over the whole optimiser step.

        Args:
            factors: (S,) f ≥ 0.
        """
        # As in DoReMi's public code, where all of a batch's domains may have weight 0.
        total = (self._step_counts(len(factors)) * factors).sum().clamp(min=1e-10)
        return (self.micro_batches * factors / total)[self.domain.cpu()]

    def _step_counts(self, domains: int) -> Tensor:
        whole = self.domain if self.step_domain is None else self.step_domain
        return count_domains(whole, domains)


def _copied(value: Any) -> Any:
    if isinstance(value, TokenGradients | Alignment):
        return type(value)(*(part.clone() for part in vars(value).values()))
    return value.clone() if isinstance(value, Tensor) else value


def count_domains(domain: Tensor, domains: int) -> Tensor:
    """(S,) int64 sequences of each of S ``domains`` among (B,) ``domain``, on the CPU."""
    return torch.bincount(domain.cpu(), minlength=domains)


def clipped_excess(token_losses: Tensor, reference_losses: Tensor) -> Tensor:
    """(B,) mean over tokens of ``max(ℓ_θ − ℓ_reference, 0)``, of (B, T) losses in nats.

    Tokens are clipped one by one (DoReMi, Xie et al. 2023, arXiv 2305.10429, Algorithm 1).

    >>> clipped_excess(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    tensor([1.])
    """
    return (token_losses - reference_losses).clamp(min=0).mean(dim=1)


def join(parts: list[BatchSignals]) -> BatchSignals:
    """One optimiser step's micro-batches as one batch; their weights sum to 1 again."""
    if len(parts) == 1:
        return parts[0]

    joined: dict[str, Any] = {}
    for name in ("domain", "sequence_loss", "sketch", "loss_weights", "excess_loss"):
        values = [getattr(part, name) for part in parts]
        joined[name] = None if any(value is None for value in values) else torch.cat(values)
    if joined["loss_weights"] is not None:
        joined["loss_weights"] /= len(parts)
    read = [part.token_gradients for part in parts if part.token_gradients is not None]
    if read:
        fields = ([getattr(each, key) for each in read] for key in vars(read[0]))
        joined["token_gradients"] = TokenGradients(*map(torch.cat, fields))
    return replace(parts[-1], **joined, step_domain=None, learning_rate=parts[0].learning_rate)
