"""The only glue between training and mixing.

A batch's way: ``on_train_batch_start`` has its forward recorded, ``reduce_loss`` collects its
signals and weighs its losses, ``on_after_backward`` adds sketches read from the backward, and after
the optimiser step ``on_train_batch_end`` lets the mixer update what the sampler draws.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from dograph.data.batch import Batch
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError, check_whole
from dograph.mixers.base import LOSS, ROUNDING, SAMPLING, BaseMixer
from dograph.mixers.dry_run import dry_run
from dograph.mixers.random_state import global_random_state, set_global_random_state
from dograph.mixers.simplex import on_simplex
from dograph.signals.batch_signals import BatchSignals, HeldOutLoss, Sketch, ValidationLoss, join
from dograph.signals.domain_sums import DomainSums
from dograph.signals.sketches import SketchSettings
from dograph.training.held_out_losses import held_out_losses
from dograph.training.language_model import LanguageModel, ReduceLoss
from dograph.training.signal_collector import SignalCollector
from dograph.training.step_state import StepState
from dograph.training.trainer_checks import check_model, check_steps
from dograph.training.update_checks import check_updates

logger = logging.getLogger(__name__)
RANDOM_STATE = "random_states"
"""A checkpoint's key for the global random states of all ranks."""
UNFINISHED = "batches_of_unfinished_step"
"""A checkpoint's key for how many batches of an optimiser step had been trained on."""


class MixingCallback(Callback):
    """Collects what the mixer needs, asks it for weights, hands them to loss and sampler.

    Works in any Lightning script that trains a ``LanguageModel`` on a ``DataMixer``. A batch with
    a loss or a signal that is not finite counts evenly and tells the mixer nothing. Observing
    (sketches that only figures use) never changes training.

    Args:
        sketch: how gradients are sketched, where the mixer or an observer needs it.
        observe_every: steps between windows in which sequences are sketched for figures; 0 never.
        observe_window: steps of a window, which ends at a multiple of ``observe_every``; the
            first steps of a run are always one.

    Attributes:
        signals: of the last micro-batch, of all ranks.
    """

    def __init__(
        self, sketch: SketchSettings | None = None, observe_every: int = 0, observe_window: int = 8
    ) -> None:
        check_whole("MixingCallback.observe_every", observe_every, at_least=0)
        check_whole("MixingCallback.observe_window", observe_window, at_least=1)
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
        self._random_state: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._reduce_before: ReduceLoss | None = None
        self._handed_over: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepares what the DataMixer's mixer needs, before training."""
        if stage != "fit":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, DataMixer) or not isinstance(pl_module, LanguageModel):
            raise UserError(
                "MixingCallback needs trainer.fit(LanguageModel, datamodule=DataMixer), got "
                f"{type(pl_module).__name__} and {type(data).__name__}"
            )
        self.trainer, self.model, self.data = trainer, pl_module, data
        check_steps(trainer)
        check_model(pl_module)
        # A resumed run's own sums are restored after this; a second fit of the trainer keeps them.
        if not data.sampler.trained or len(self.effective) != len(data.domains):
            self._effective = DomainSums(len(data.domains))
        self._state = StepState()
        sketch = self.mixer.request(Sketch)
        if self.sketch_settings.fresh and sketch is not None and sketch.across_steps:
            raise UserError(
                "sketch.fresh is true: sketches by new projections every step cannot be compared, "
                f"but {type(self.mixer).__name__} compares those of a window of steps: set it to "
                "false"
            )
        dry_run(self.mixer, data.batch_size * trainer.world_size)
        check_updates(trainer, self.mixer, bool(data.validation_domains), data.lookahead)
        self._warn_of_few_sequences(trainer)
        self.collector = SignalCollector(
            trainer, pl_module, data, self.sketch_settings, observed=self.observe_every > 0
        )
        self._reduce_before = pl_module.reduce_loss
        pl_module.reduce_loss = self.reduce_loss
        data.attended = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins with a whole step, whatever a search for a learning rate has left."""
        self._state = StepState(trainer.global_step)
        self._handed_over = self._weights()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the state before it; a UserError where nobody tells a mixer the losses it reads."""
        self._before_validation = None
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.mixer.request(ValidationLoss) and self.mixer.validation_loss is None:
            raise UserError(
                f"{type(self.mixer).__name__} reads the losses of validations here: add "
                "DomainPerplexity() to the trainer's callbacks"
            )

    def _warn_of_few_sequences(self, trainer: Trainer) -> None:
        """Warns where an update cannot have seen every domain."""
        mixer, steps = self.mixer, self.mixer.update_every
        batch = self.data.batch_size * trainer.world_size * int(trainer.accumulate_grad_batches)
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

    @property
    def mixer(self) -> BaseMixer:
        """The DataMixer's mixer."""
        return self.data.mixer

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the model its own loss back, and removes the sketcher's hooks."""
        if stage == "fit":
            self._detach()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Removes the hooks; Lightning does not call ``teardown`` after an exception."""
        self._detach()

    def _detach(self) -> None:
        if self.collector is not None:
            self.collector.detach()
        if self._reduce_before is not None:  # another fit may have another callback, or none
            self.model.reduce_loss, self._reduce_before = self._reduce_before, None

    def observing(self, step: int) -> bool:
        """Whether sequences are sketched for figures at an optimiser step."""
        if not self.observe_every:
            return False
        in_window = step % self.observe_every >= self.observe_every - self.observe_window
        return step < self.observe_window or in_window

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Has the coming forward recorded where somebody needs its sketches."""
        self._restore_random_state()  # by now loaders have drawn what they draw at a start
        if not self._state.micro_batches:
            self._state = self.model.step_state = StepState(trainer.global_step)
        if self.collector is not None:
            self.collector.record(self._state.index, self.observing(self._state.index))

    def _restore_random_state(self) -> None:
        """Goes back to the random state that a checkpoint has kept, once."""
        if self._random_state is not None:
            set_global_random_state(self._random_state, self.trainer.strategy.root_device)
            self._random_state = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the random state: its loaders draw, and an interrupted validation begins again."""
        if self.collector is not None:
            self._restore_random_state()
            self._before_validation = global_random_state(trainer.strategy.root_device)

    def reduce_loss(self, batch: Batch, token_losses: Tensor) -> Tensor:
        """This rank's part of ``Σ_i a_i ℓ_i`` of (B, T) token losses; the mixer gives weights a."""
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
        if self.trainer.world_size > 1 and self.mixer.acts(LOSS):
            weights = self.trainer.strategy.broadcast(weights, src=0)
        return weights

    def _own_share(self, weights: Tensor) -> Tensor:
        """(B / ranks,) this rank's, times the ranks, since gradients are averaged over them."""
        world_size = self.trainer.world_size
        if world_size == 1:
            return weights
        share = len(weights) // world_size
        first = self.trainer.global_rank * share
        return weights[first : first + share] * world_size

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Has the sketches read from this backward, where they come from there."""
        if self.collector is not None:
            self.collector.before_backward()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds what the micro-batch's backward has brought, if it was asked."""
        if self.collector is None or self.signals is None:
            return
        finite = self.collector.after_backward(self.signals)
        if self.mixer.learns:
            self._state.usable = self._state.usable and finite

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch; after an optimiser step lets the mixer update what is drawn."""
        self.data.sampler.mark_trained()
        state = self._state
        if trainer.global_step == state.index:
            return
        if not state.micro_batches:
            raise UserError(
                f"{type(pl_module).__name__}.training_step does not call self.reduce_loss(batch, "
                "token_losses), by which the mixer sees and weighs the batch: return its result"
            )
        signals = join(state.micro_batches)
        state.micro_batches = []
        assert signals.loss_weights is not None
        self._effective.add(signals.domain, signals.loss_weights.clone())
        if self.mixer.acts(LOSS) and self.mixer.whole_batch and state.usable:
            on_simplex(signals.loss_weights, "the optimiser step's loss weights")
        skipped = self.mixer.learns and bool(self.model.skipped[1])
        self._check_by_hand()
        if not state.usable or skipped:
            return
        request = self.mixer.request(HeldOutLoss)
        if request is not None and self.mixer.needs_at(state.index, HeldOutLoss):
            measured = held_out_losses(trainer, self.data, request.sequences)
            signals.held_out_loss = measured
        step_batches = int(trainer.accumulate_grad_batches)
        signals.drawn_before = torch.from_numpy(self.data.sampler.drawn_before(step_batches))
        if self.mixer.step(signals):
            self._hand_over()

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
        mixer, strategy = self.mixer, self.trainer.strategy
        if self.trainer.world_size > 1:
            for weights in (mixer.weights, mixer.sampling_weights):
                weights.copy_(strategy.broadcast(weights, src=0))
        if mixer.acts(SAMPLING):
            on_simplex(mixer.sampling_weights, f"{type(mixer).__name__}.sampling_weights")
            accumulated = int(self.trainer.accumulate_grad_batches)
            self.data.sampler.set_weights(mixer.sampling_weights.numpy(), accumulated)
        self._handed_over = self._weights()

    @property
    def effective(self) -> Tensor:
        """(S,) float64, sums of loss weights by domain over the run."""
        return self._effective.sums

    def state_dict(self) -> dict[str, Any]:
        """Effective weights so far."""
        return self._effective.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them."""
        self._effective.load_state_dict(state_dict)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds every rank's global random state, which a mixer or dropout may draw from."""
        own = self._before_validation or global_random_state(trainer.strategy.root_device)
        checkpoint[RANDOM_STATE] = every_ranks(own)
        checkpoint[UNFINISHED] = len(self._state.micro_batches)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps this rank's until the first batch; of another number of ranks none fits."""
        if batches := checkpoint.get(UNFINISHED, 0):
            logger.warning(
                "the checkpoint was saved after %s batches of an optimiser step, whose gradients "
                "it does not hold: that step is taken without them; save after whole steps",
                batches,
            )
        states = checkpoint.get(RANDOM_STATE, [])
        if len(states) == trainer.world_size:
            self._random_state = states[trainer.global_rank]
        else:
            logger.warning(
                "the checkpoint holds the random states of %d processes, this run has %d: random "
                "numbers start anew",
                len(states),
                trainer.world_size,
            )


def every_ranks(value: Any) -> list[Any]:
    """A plain value of each rank, in their order; every rank must call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    file = io.BytesIO()  # saved first: plain pickles take not all of torch's types
    torch.save(value, file)
    files: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(files, file.getvalue())
    return [torch.load(io.BytesIO(each), weights_only=True) for each in files]


@contextmanager
def float32_by_default() -> Iterator[None]:
    """New tensors have float32, whatever the trainer's precision sets for the model's forward."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
