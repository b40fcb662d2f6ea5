"""What a mixer is: signals in, domain weights out."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.mixers.snapshot import MixerSnapshot
from dograph.signals.batch_signals import BatchSignals, Signal

SIMPLEX_TOLERANCE = 1e-4


def on_simplex(weights: Tensor, name: str) -> Tensor:
    """Checks that ``weights`` is finite, non-negative and sums to 1; removes rounding.

    Args:
        weights: (n,) any floating type.
        name: what the message calls it.

    Returns:
        (n,) float64 on the CPU, summing to 1 to double precision.

    Raises:
        UserError: with the offending value, if it is off the simplex by more than 1e-4.
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


class BaseMixer(nn.Module):
    """Decides what to draw next and how the drawn batch counts.

    A subclass overrides one or both of its two places to act: ``update`` (sampling, between
    batches) and ``loss_weights`` (the loss of the batch at hand, before its backward).
    Weights count *tokens*, since every sequence is a full context window.

    Args:
        update_every: optimiser steps between two calls of ``update``, ≥ 1.
        warmup: optimiser steps during which nothing is updated or re-weighted, ≥ 0.
        prior: weights by domain name to start from; normalised. None: uniform.
        floor: in [0, 1): every domain keeps at least ``floor / S`` of S domains.

    Attributes:
        needs: signals that training gathers for this mixer.
        live: whether updated weights reach the sampler. A proxy's do not: it keeps drawing by
            ``prior``, and its average weights are what the next stage draws by.
        whole_batch: whether sequence weights must sum to 1. A mixer whose published loss leaves a
            part of the batch out says False; its sums may then be anything in [0, 1].
        reference: checkpoint of the reference model, where ``needs`` has ``EXCESS_LOSS``.
        held_out: sequences of every domain that are never trained on, where it has ``PROBE``.
        probe: how many of these, of every domain, one probe takes.
        weights: (S,) float64 buffer on the simplex, the domain weights.
        sampling_weights: (S,) float64 buffer on the simplex, what is drawn.
        average_weights: (S,) float64 buffer, mean of the weights over the updates: the result.
        history: (step, weights) at set-up and after every update.
    """

    needs: frozenset[Signal] | set[Signal] = frozenset()
    live: bool = True
    whole_batch: bool = True
    reference: str | None = None
    held_out: int = 0
    probe: int = 0
    weights: Tensor
    sampling_weights: Tensor
    average_weights: Tensor

    def __init__(
        self,
        update_every: int = 1,
        warmup: int = 0,
        prior: Mapping[str, float] | None = None,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        if update_every < 1:
            raise UserError(f"update_every is {update_every}: it counts steps and must be ≥ 1")
        if warmup < 0:
            raise UserError(f"warmup is {warmup}: it counts steps and must be ≥ 0")
        self.update_every, self.warmup, self.floor = update_every, warmup, checked_floor(floor)
        self.prior = dict(prior) if prior else None
        self.domains: tuple[str, ...] = ()
        self.domain_tokens: tuple[int, ...] = ()
        self.batch_size = self.vocab_size = 0
        self.history: list[tuple[int, Tensor]] = []
        self.updates = 0

    # What subclasses override.

    def initial_weights(self) -> Tensor:
        """(S,) weights to start from; called once the domains are known."""
        if self.prior is None:
            return torch.full((len(self.domains),), 1 / len(self.domains), dtype=torch.float64)
        return weights_by_name(self.prior, self.domains, "prior")

    def start(self) -> None:
        """Makes the mixer's own state anew, its domains and weights being known."""

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) what to draw from now on, on the simplex. Default: as before."""
        return self.weights

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) how this batch's losses count, sum 1. Default: 1/B each.

        With ``signals.micro_batches`` above 1 the sums may differ between micro-batches, as long as
        their mean is 1.
        """
        return even_weights(signals)

    def needs_at(self, step: int) -> Set[Signal]:
        """Which signals to gather for a step, after ``step`` are done. Default: all it needs."""
        return self.needs

    def probes(self, domain: int) -> bool:
        """Whether a domain is probed, and a part of it held out for that. Default: all are."""
        return True

    def check(self, batch_size: int) -> None:
        """Raises UserError where the settings do not fit a global batch of ``batch_size``."""

    def diagnostics(self) -> dict[str, float]:
        """Scalars of the last step that TensorBoard shows under ``mixer/``."""
        return {}

    def snapshot(self) -> MixerSnapshot:
        """What figures draw of the mixer. Default: nothing."""
        return MixerSnapshot()

    # What the framework calls.

    def setup(
        self,
        domains: Sequence[str],
        domain_tokens: Sequence[int],
        batch_size: int,
        vocab_size: int = 0,
    ) -> None:
        """Tells the mixer its domains, once, before training.

        Args:
            domains: the S domain names, in the order of ``weights``.
            domain_tokens: training tokens of each.
            batch_size: sequences of a global batch.
            vocab_size: of the tokens; 0 where no mixer asks for it.

        Raises:
            UserError: if the settings do not fit them.
        """
        self.domains, self.domain_tokens = tuple(domains), tuple(domain_tokens)
        self.batch_size, self.vocab_size = batch_size, vocab_size
        self.check(batch_size)
        weights = self._floored(on_simplex(self.initial_weights(), f"{self._name}'s start"))
        self.register_buffer("weights", weights)
        self.register_buffer("sampling_weights", weights.clone())
        self.register_buffer("average_weights", weights.clone())
        self.history = [(0, weights.clone())]
        self.updates = 0
        self.start()

    def step(self, signals: BatchSignals) -> bool:
        """Updates ``weights`` from a finished batch where one is due; says whether it did.

        Raises:
            UserError: if ``update`` returns anything but S weights on the simplex.
        """
        done = signals.step + 1
        if type(self).update is BaseMixer.update or done <= self.warmup or done % self.update_every:
            return False
        proposed = self.update(signals)
        if proposed.shape != self.weights.shape:
            raise UserError(
                f"{self._name}.update returned shape {tuple(proposed.shape)}, but there are "
                f"{len(self.domains)} domains: return one weight for each of {self.domains}"
            )
        weights = self._floored(on_simplex(proposed, f"{self._name}.update's result"))
        self.weights.copy_(weights)
        if self.live:
            self.sampling_weights.copy_(weights)
        self.updates += 1
        self.average_weights += (weights - self.average_weights) / self.updates
        self.history.append((done, weights.clone()))
        return True

    def weigh(self, signals: BatchSignals) -> Tensor:
        """(B,) float32 weights of the batch's losses, checked; 1/B during warm-up.

        Raises:
            UserError: if ``loss_weights`` returns anything but B weights on the simplex.
        """
        uniform = type(self).loss_weights is BaseMixer.loss_weights
        if uniform or signals.step < self.warmup:
            return BaseMixer.loss_weights(self, signals)
        weights = self.loss_weights(signals)
        if weights.shape != signals.domain.shape:
            raise UserError(
                f"{self._name}.loss_weights returned shape {tuple(weights.shape)} for a "
                f"batch of {signals.batch_size} sequences: return one weight for each"
            )
        name = f"{self._name}.loss_weights' result"
        if self.whole_batch and signals.micro_batches == 1:
            return on_simplex(weights, name).float()
        return self._part_of_simplex(weights, name, signals.micro_batches)

    @property
    def changes_loss(self) -> bool:
        """Whether the mixer weights losses by anything but 1/B."""
        return type(self).loss_weights is not BaseMixer.loss_weights

    @property
    def listens(self) -> bool:
        """Whether any signal of training changes the weights."""
        return self.changes_loss or type(self).update is not BaseMixer.update

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _part_of_simplex(self, weights: Tensor, name: str, most: int) -> Tensor:
        """Weights as they are, once checked: finite, ≥ 0, with a sum in [0, ``most``]."""
        total = weights.sum().item()
        if weights.min() < 0 or not total <= most + SIMPLEX_TOLERANCE:  # also where NaN
            raise UserError(
                f"{name} has sum {total:.6g} and smallest value {weights.min().item():.6g}: return "
                f"finite values ≥ 0 with a sum in [0, {most}]"
            )
        return weights.float()

    def _floored(self, weights: Tensor) -> Tensor:
        return self.floor / weights.numel() + (1 - self.floor) * weights

    def get_extra_state(self) -> dict[str, Any]:
        """History and counters, as plain tensors and numbers (safe to load)."""
        steps = torch.tensor([step for step, _ in self.history])
        return {
            "updates": self.updates,
            "history_steps": steps,
            "history_weights": torch.stack([weights for _, weights in self.history]),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what ``get_extra_state`` gave."""
        self.updates = int(state["updates"])
        pairs = zip(state["history_steps"].tolist(), state["history_weights"], strict=True)
        self.history = [(int(step), weights) for step, weights in pairs]


def even_weights(signals: BatchSignals) -> Tensor:
    """(B,) every sequence counts 1/B."""
    return torch.full((signals.batch_size,), 1 / signals.batch_size)


def checked_floor(floor: float) -> float:
    """The floor itself.

    Raises:
        UserError: unless it lies in [0, 1).
    """
    if not 0 <= floor < 1:
        raise UserError(f"floor is {floor}: it must lie in [0, 1)")
    return floor


def dry_run(mixer: BaseMixer, batch_size: int) -> None:
    """Lets a copy of a mixer weigh and update once on made-up signals, before any training.

    Args:
        mixer: set up; it and the global random state stay as they are.
        batch_size: sequences of a global batch.

    Raises:
        UserError: if its weights would be off the simplex or of the wrong shape.
    """
    trial = copy.deepcopy(mixer)
    trial.setup(mixer.domains, mixer.domain_tokens, batch_size, mixer.vocab_size)
    generator = torch.Generator().manual_seed(0)
    first_update = (mixer.warmup // mixer.update_every + 1) * mixer.update_every
    signals = BatchSignals(
        step=first_update - 1,
        domain=torch.arange(batch_size) % len(mixer.domains),
        sequence_loss=1 + torch.rand(batch_size, generator=generator),
        learning_rate=1e-3,
    )
    if Signal.SKETCH in mixer.needs:
        signals.sketch = torch.randn(batch_size, 64, generator=generator)
    if Signal.PROBE in mixer.needs:
        count = len(mixer.domains)
        signals.probe_sketch = torch.randn(2 * count, 64, generator=generator)
        signals.probe_domain = torch.arange(2 * count) % count
    if Signal.EXCESS_LOSS in mixer.needs:
        signals.excess_loss = torch.rand(batch_size, generator=generator)
    if Signal.DOMAIN_GRADIENTS in mixer.needs:
        gradients = torch.randn(len(mixer.domains), 64, generator=generator)
        signals.domain_kernel = gradients @ gradients.T
    with torch.random.fork_rng(devices=[]):
        signals.loss_weights = trial.weigh(signals)
        trial.step(signals)


def weights_by_name(weights: Mapping[str, float], domains: Sequence[str], key: str) -> Tensor:
    """(S,) weights in the order of ``domains``, normalised to sum 1.

    Args:
        weights: a non-negative number for each domain, by name.
        domains: the S domain names.
        key: what messages call the mapping.

    Raises:
        UserError: if a name is missing or unknown, or a weight is negative or not finite.
    """
    unknown, missing = set(weights) - set(domains), set(domains) - set(weights)
    if unknown or missing:
        raise UserError(
            f"{key} must name every domain once: unknown {sorted(unknown)}, "
            f"missing {sorted(missing)}; the corpus has {list(domains)}"
        )
    values = [float(weights[name]) for name in domains]
    if not all(math.isfinite(value) and value >= 0 for value in values) or sum(values) <= 0:
        raise UserError(f"{key} must hold finite numbers ≥ 0 with a positive sum, got {values}")
    exact = torch.tensor(values, dtype=torch.float64)
    return exact / exact.sum()
