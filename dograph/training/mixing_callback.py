"""The only glue between Lightning's training and mixing."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.mixers.random_state import global_random_state, set_global_random_state
from dograph.signals.batch_signals import ValidationLoss
from dograph.signals.sketches import SketchSettings
from dograph.training.language_model import LanguageModel, ReduceLoss
from dograph.training.loop import LightningLoop, every_ranks
from dograph.training.mixing import Mixing
from dograph.training.step_state import StepState
from dograph.training.trainer_checks import check_model, check_steps
from dograph.training.update_checks import check_updates

logger = logging.getLogger(__name__)
RANDOM_STATE = "random_states"
"""A checkpoint's key for the global random states of all ranks."""
UNFINISHED = "batches_of_unfinished_step"
"""A checkpoint's key for how many batches of an optimiser step had been trained on."""


class MixingCallback(Mixing, Callback):
    """``Mixing`` by the hooks of Lightning's trainer.

    Works in any Lightning script that trains on a ``DataMixer`` a LightningModule with a
    ``network``, a method ``token_losses`` and a ``training_step`` that returns
    ``self.reduce_loss(batch, token_losses)``; a ``LanguageModel`` has them.

    Args:
        sketch: how gradients are sketched, where the mixer or an observer needs it.
        observe_every: steps between windows in which sequences are sketched for figures; 0 never.
        observe_window: steps of a window, which ends at a multiple of ``observe_every``; the
            first steps of a run are always one.
    """

    def __init__(
        self, sketch: SketchSettings | None = None, observe_every: int = 0, observe_window: int = 8
    ) -> None:
        super().__init__(sketch, observe_every, observe_window)
        self._random_state: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._module: LightningModule | None = None
        self._reduce_before: ReduceLoss | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepares what the DataMixer's mixer needs, before training."""
        if stage != "fit":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, DataMixer):
            raise UserError(
                "MixingCallback needs trainer.fit(model, datamodule=DataMixer), got "
                f"{type(data).__name__}"
            )
        check_model(pl_module)
        check_steps(trainer)
        check_updates(trainer, data.mixer, bool(data.validation_domains), data.lookahead)
        model: Any = pl_module
        self.begin(LightningLoop(trainer, pl_module), model, data)
        self._module, self._reduce_before = pl_module, vars(pl_module).get("reduce_loss")
        model.reduce_loss = self.reduce_loss

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

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the model its own loss back, and removes the sketcher's hooks."""
        if stage == "fit":
            self.detach()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Removes the hooks; Lightning does not call ``teardown`` after an exception."""
        self.detach()

    def detach(self) -> None:
        """Gives the model its own loss back, and removes the hooks."""
        super().detach()
        if self._module is None:
            return
        if self._reduce_before is not None:  # another fit may have another callback, or none
            vars(self._module)["reduce_loss"] = self._reduce_before
        else:
            vars(self._module).pop("reduce_loss", None)
        self._module = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Has the coming forward recorded where somebody needs its sketches."""
        self._restore_random_state()  # by now loaders have drawn what they draw at a start
        self.before_forward()
        if isinstance(pl_module, LanguageModel):  # which skips a step that is not usable
            pl_module.step_state = self._state

    def _restore_random_state(self) -> None:
        """Goes back to the random state that a checkpoint has kept, once."""
        if self._random_state is not None:
            set_global_random_state(self._random_state, self.loop.device)
            self._random_state = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the random state: its loaders draw, and an interrupted validation begins again."""
        if self.collector is not None:
            self._restore_random_state()
            self._before_validation = global_random_state(trainer.strategy.root_device)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Has the sketches read from this backward, where they come from there."""
        self.before_backward()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds what the micro-batch's backward has brought, if it was asked."""
        self.after_backward()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch; after an optimiser step lets the mixer update what is drawn."""
        self.data.sampler.mark_trained()
        if trainer.global_step == self._state.index:
            return
        if not self._state.micro_batches:
            raise UserError(
                f"{type(pl_module).__name__}.training_step does not call self.reduce_loss(batch, "
                "token_losses), by which the mixer sees and weighs the batch: return its result"
            )
        skipped = getattr(pl_module, "skipped", None)
        self.after_step(skipped is not None and self.mixer.learns and bool(skipped[1]))

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
