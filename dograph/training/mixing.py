"""Mixing in a training loop: signals to the mixer, its weights to loss and sampler."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError, check_whole
from dograph.mixers.base import LOSS, ROUNDING, SAMPLING, BaseMixer
from dograph.mixers.dry_run import dry_run
from dograph.mixers.simplex import on_simplex
from dograph.signals.batch_signals import BatchSignals, HeldOutLoss, Sketch, join
from dograph.signals.domain_sums import DomainSums
from dograph.signals.sketches import SketchSettings
from dograph.training.held_out_losses import held_out_losses
from dograph.training.loop import Loop, TrainedModel
from dograph.training.signal_collector import SignalCollector
from dograph.training.step_state import StepState

logger = logging.getLogger(__name__)


class Mixing:
    """Collects what a mixer needs, asks it for weights, hands them to loss and sampler.

    It knows no trainer. For every micro-batch: ``before_forward``, ``reduce_loss`` on its token
    losses, ``before_backward`` and ``after_backward``; after the optimiser's step ``after_step``.
    ``MixingLoop`` does so in a loop of one's own, ``MixingCallback`` in Lightning's. A batch with a
    loss or a signal that is not finite counts evenly and tells the mixer nothing. Observing
    (sketches that only figures use) never changes training.

    Args:
        sketch: how gradients are sketched, where the mixer or an observer needs it.
        observe_every: steps between windows in which sequences are sketched for figures; 0 never.
        observe_window: steps of a window, which ends at a multiple of ``observe_every``; the
            first steps of a run are always one.

    Attributes:
        signals: of the last micro-batch, of all ranks.
    """

    loop: Loop
    model: TrainedModel
    data: DataMixer

    def __init__(
        self, sketch: SketchSettings | None = None, observe_every: int = 0, observe_window: int = 8
    ) -> None:
        name = type(self).__name__
        check_whole(f"{name}.observe_every", observe_every, at_least=0)
        check_whole(f"{name}.observe_window", observe_window, at_least=1)
        if observe_every and not 0 < observe_window <= observe_every:
            raise UserError(
                f"observe_window is {observe_window}: it must lie in 1 … observe_every "
                f"({observe_every})"
            )
        self.sketch_settings = sketch if sketch is not None else SketchSettings()
        self.observe_every, self.observe_window = observe_every, observe_window
        self.collector: SignalCollector | None = None
        self.signals: BatchSignals | None = None
        self._effective = DomainSums(0)
        self._state = StepState()
        self._handed_over: dict[str, Tensor] = {}

    def begin(self, loop: Loop, model: TrainedModel, data: DataMixer) -> None:
        """Prepares what the mixer of ``data``, which is set up, needs; UserError if it cannot."""
        self.loop, self.model, self.data = loop, model, data
        # A resumed run's own sums are restored after this; a second fit of a trainer keeps them.
        if not data.sampler.trained or len(self.effective) != len(data.domains):
            self._effective = DomainSums(len(data.domains))
        self._state = StepState(loop.step)
        sketch = self.mixer.request(Sketch)
        if self.sketch_settings.fresh and sketch is not None and sketch.across_steps:
            raise UserError(
                "sketch.fresh is true: sketches by new projections every step cannot be compared, "
                f"but {type(self.mixer).__name__} compares those of a window of steps: set it to "
                "false"
            )
        dry_run(self.mixer, data.batch_size * loop.world_size)
        self._warn_of_few_sequences()
        self.collector = SignalCollector(
            loop, model, data, self.sketch_settings, observed=self.observe_every > 0
        )
        self._handed_over = self._weights()
        data.attended = True

    def detach(self) -> None:
        """Removes the hooks from the model."""
        if self.collector is not None:
            self.collector.detach()

    @property
    def mixer(self) -> BaseMixer:
        """The DataMixer's mixer."""
        return self.data.mixer

    @property
    def effective(self) -> Tensor:
        """(S,) float64, sums of loss weights by domain over the run."""
        return self._effective.sums

    def observing(self, step: int) -> bool:
        """Whether sequences are sketched for figures at an optimiser step."""
        if not self.observe_every:
            return False
        in_window = step % self.observe_every >= self.observe_every - self.observe_window
        return step < self.observe_window or in_window

    def _warn_of_few_sequences(self) -> None:
        """Warns where an update cannot have seen every domain."""
        mixer, steps = self.mixer, self.mixer.update_every
        batch = self.data.batch_size * self.loop.world_size * self.loop.micro_batches
        trained = int(mixer.trained.sum())
        if (mixer.is_proxy or mixer.acts(SAMPLING)) and batch * steps < trained:
            logger.warning(
                "%s updates every %d step(s) of %d sequences, fewer than the %d domains: those "
                "that are absent keep their weights or lose; raise data.batch_size or "
                "trainer.accumulate_grad_batches",
                type(mixer).__name__,
                steps,
                batch,
                trained,
            )

    def before_forward(self) -> None:
        """Has the coming forward recorded where somebody needs its sketches."""
        if not self._state.micro_batches:
            self._state = StepState(self.loop.step)
        if self.collector is not None:
            self.collector.record(self._state.index, self.observing(self._state.index))

    def reduce_loss(self, batch: Batch, token_losses: Tensor) -> Tensor:
        """This rank's part of ``Σ_i a_i ℓ_i`` of (B, T) token losses; the mixer gives weights a.

        Losses without a graph are those of a validation, and only averaged.
        """
        if not token_losses.requires_grad:
            return token_losses.mean()
        assert self.collector is not None
        state, losses = self._state, token_losses.mean(dim=1)
        signals = self.collector.collect(
            batch, token_losses, losses, state.index, len(state.micro_batches)
        )
        self.signals = signals
        state.usable = state.usable and (not self.mixer.learns or signals.finite)
        signals.loss_weights = self._loss_weights(signals).to(losses.device)
        state.micro_batches.append(signals)
        return self.collector.weigh(self._own_share(signals.loss_weights), losses)

    def _loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) how all ranks' sequences count, the same on every rank."""
        if not self._state.usable:
            weights = signals.even_weights()
        else:
            with float32_by_default():  # the precision's own is that of the forward
                weights = self.mixer.checked_loss_weights(signals)
        return self.loop.first(weights) if self.mixer.acts(LOSS) else weights

    def _own_share(self, weights: Tensor) -> Tensor:
        """(B / ranks,) this rank's, times the ranks, since gradients are averaged over them."""
        ranks = self.loop.world_size
        if ranks == 1:
            return weights
        share = len(weights) // ranks
        first = self.loop.rank * share
        return weights[first : first + share] * ranks

    def before_backward(self) -> None:
        """Has the sketches read from the coming backward, where they come from there."""
        if self.collector is not None:
            self.collector.before_backward()

    def after_backward(self) -> None:
        """Adds what the micro-batch's backward has brought, if it was asked."""
        if self.collector is None or self.signals is None:
            return
        finite = self.collector.after_backward(self.signals)
        if self.mixer.learns:
            self._state.usable = self._state.usable and finite

    def after_step(self, skipped: bool = False) -> None:
        """Lets the mixer update what is drawn, after an optimiser step.

        Args:
            skipped: whether the optimiser has left the step out, since it was not finite.
        """
        state = self._state
        signals = join(state.micro_batches)
        state.micro_batches = []
        assert signals.loss_weights is not None
        self._effective.add(signals.domain, signals.loss_weights.clone())
        if self.mixer.acts(LOSS) and self.mixer.whole_batch and state.usable:
            on_simplex(signals.loss_weights, "the optimiser step's loss weights")
        self._check_by_hand()
        if not state.usable or skipped:
            return
        request = self.mixer.request(HeldOutLoss)
        if request is not None and self.mixer.needs_at(state.index, HeldOutLoss):
            signals.held_out_loss = self.held_out_losses(request.sequences)
        drawn_before = self.data.sampler.drawn_before(self.loop.micro_batches)
        signals.drawn_before = torch.from_numpy(drawn_before)
        if self.mixer.step(signals):
            self._hand_over()

    def held_out_losses(self, sequences: int | None = None) -> Tensor:
        """(S,) float64 mean token losses in nats, of some or of a validation's sequences."""
        model: Any = self.model
        module = model if isinstance(model, nn.Module) else model.network
        return held_out_losses(self.loop, module, self.data, sequences)

    def _check_by_hand(self) -> None:
        """UserError for weights that ``update`` has not set: nothing draws by them."""
        for name, now in self._weights().items():
            if not torch.allclose(now, self._handed_over[name], rtol=0, atol=ROUNDING):
                raise UserError(
                    f"{type(self.mixer).__name__}.{name} was changed by other means than its "
                    "update, and nothing draws by it: return weights from update or initial_weights"
                )

    def _weights(self) -> dict[str, Tensor]:
        """Copies of the weights that only ``update`` may set."""
        names = ["sampling_weights"]
        if not self.mixer.acts(LOSS):  # else weights may show how losses count
            names.append("weights")
        return {name: getattr(self.mixer, name).double().clone() for name in names}

    def _hand_over(self) -> None:
        """Gives the mixer's new weights to the sampler, the same on every rank."""
        mixer = self.mixer
        for weights in (mixer.weights, mixer.sampling_weights):
            weights.copy_(self.loop.first(weights))
        if mixer.acts(SAMPLING):
            on_simplex(mixer.sampling_weights, f"{type(mixer).__name__}.sampling_weights")
            self.data.sampler.set_weights(mixer.sampling_weights.numpy(), self.loop.micro_batches)
        self._handed_over = self._weights()


@contextmanager
def float32_by_default() -> Iterator[None]:
    """New tensors have float32, whatever the trainer's precision sets for the model's forward."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
