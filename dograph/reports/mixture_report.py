"""A run's report: TensorBoard while it trains, a summary at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError, check_whole
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.files.run_dir import FIGURES
from dograph.mixers.declared import LOSS, diagnostics_of, snapshot_of
from dograph.mixers.dograph_schedule import DoGraphSchedule
from dograph.reports.cost import training_flops
from dograph.reports.history import LossMeans, MixtureHistory, TrainingClock, Validation
from dograph.reports.observation import ObservationWindow
from dograph.reports.pictures import Pictures, draw_own_graph, draw_schedule, draw_trajectories
from dograph.reports.summary import RunSummary, print_summary, summarise_run, write_summary
from dograph.reports.tensorboard import Board, by_domain, by_level, grouped
from dograph.training.mixing_callback import MixingCallback

logger = logging.getLogger(__name__)
STATEFUL = ("history", "losses", "window", "pictures")
"""Parts of a report that a checkpoint keeps."""


class MixtureReport(Callback):
    """Reports the mixture in TensorBoard and summarises the run; never changes training.

    Needs a ``TensorBoardLogger`` and comes after ``mixing`` in the trainer's callbacks. Only rank
    zero reports. Steps without a point cost a few additions.

    Scalars: ``train/`` (mean loss since the last point, weighted loss where it differs, learning
    rate of the next step), ``sampling/``, ``realised/``, ``effective/``, ``tokens/`` and
    ``epochs/`` by domain, ``mixer/`` (its diagnostics), ``observed/`` (mutual information in nats
    and effective clusters of each observation window, the same for all mixers), ``speed/``.
    Figures: at the end of each window that ``mixing`` observes, and of the run.

    Args:
        mixing: the same trainer's callback, which has the batch's signals.
        perplexity: the same trainer's callback, which has the final losses.
        hyperparameters: the run's, nested or flat; the HParams tab compares runs by them.
        every: optimiser steps between two points of the scalars, ≥ 1.
        figures_every: optimiser steps between two drawings of the weight trajectories (and of
            the mixer's graph, where ``mixing`` observes nothing); 0: only at the end.
        clusters: number of clusters of an observation window, where the mixer asks for none.
        seed: seed of an observation window's K-means.
        print_at_end: whether to print the final table.
        runs_folder: folder named in the printed TensorBoard command. None: the logger's folder.

    Attributes:
        summary: the finished run's numbers; None before.
        history: the mixture's trajectory so far.
    """

    def __init__(
        self,
        mixing: MixingCallback,
        perplexity: DomainPerplexity,
        hyperparameters: dict[str, Any] | None = None,
        every: int = 10,
        figures_every: int = 100,
        clusters: int = 11,
        seed: int = 0,
        print_at_end: bool = True,
        runs_folder: Path | None = None,
    ) -> None:
        check_whole("MixtureReport.every", every, at_least=1)
        check_whole("MixtureReport.figures_every", figures_every, at_least=0)
        check_whole("MixtureReport.clusters", clusters, at_least=1)
        self.mixing, self.perplexity = mixing, perplexity
        self.hyperparameters = dict(hyperparameters or {})
        self.every, self.figures_every, self.print_at_end = every, figures_every, print_at_end
        self.runs_folder = runs_folder
        self.clusters, self.seed = clusters, seed
        self._step = self._trained = 0  # optimiser steps, and sequences in them
        self._board: Board | None = None
        self._begin()

    def _begin(self) -> None:
        """Starts a run's report, without anything of a run before."""
        self.summary: RunSummary | None = None
        self.history, self.losses, self.clock = MixtureHistory(), LossMeans(), TrainingClock()
        self.window = ObservationWindow(comparable=not self.mixing.sketch_settings.fresh)
        self.pictures = Pictures(self.clusters, self.seed)
        self._last_point = (0, 0.0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the logger; a UserError without one, or with this callback before ``mixing``."""
        # A fast_dev_run has no logger, by Lightning's own rule, and needs no report.
        if stage != "fit" or getattr(trainer, "fast_dev_run", False):
            return
        order: list[Any] = list(getattr(trainer, "callbacks", []))
        if self.mixing not in order or order.index(self.mixing) > order.index(self):
            raise UserError(
                "MixtureReport reads the signals of its MixingCallback: put that one into the "
                "trainer's callbacks too, and before MixtureReport"
            )
        loggers = [each for each in trainer.loggers if isinstance(each, TensorBoardLogger)]
        if not loggers:
            raise UserError(
                "MixtureReport needs a TensorBoardLogger: give the trainer "
                "logger=TensorBoardLogger(save_dir='runs')"
            )
        if self.perplexity not in order:
            raise UserError(
                "MixtureReport reads the losses of its DomainPerplexity: put that one into the "
                "trainer's callbacks too"
            )
        if trainer.global_step == 0:  # a resumed run's own state is restored after this
            self._begin()
        self._data: DataMixer = trainer.datamodule  # type: ignore[attr-defined]
        self._logger = loggers[0]
        self._others = [each for each in trainer.loggers if each is not self._logger]
        self._run_folder = Path(self._logger.log_dir)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the layout of the charts and starts the clock."""
        if not trainer.is_global_zero or not hasattr(self, "_logger"):
            return
        self._board = Board(self._logger, self._others, self._run_folder / FIGURES)
        self._step, self._trained = trainer.global_step, int(self._data.sampler.realised.sum())
        self.history.domains = self._data.domains
        is_schedule = isinstance(self._data.mixer, DoGraphSchedule)
        self._board.begin(self._data.domains, self._step, is_schedule)
        self.clock.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch; logs where a point is due, draws where a window ends."""
        signals = self.mixing.signals
        if self._board is None or signals is None:
            return
        self.losses.add(signals)
        if self.mixing.observing(signals.step):
            self.window.add(signals)
        if trainer.global_step == self._step:  # more micro-batches to come
            return
        self._step, self._trained = trainer.global_step, int(self._data.sampler.realised.sum())
        if self._step % self.every == 0:
            self._log_point(self._board, trainer)
        if self._window_ends():
            with self.clock.paused():
                self._draw_window(self._board)
        if self.figures_every and self._step % self.figures_every == 0:
            with self.clock.paused():
                self._draw_trajectories(self._board)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self.clock.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the losses and starts the clock again, if training has begun."""
        if self._board is None:
            return
        # Micro-batches of a step under way are not in the model yet.
        done = (trainer.global_step, self._trained * self._data.context, self.clock.seconds)
        self.history.add_validation(Validation(*done, dict(self.perplexity.losses)))
        self.history.write(self._run_folder)
        self.clock.start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Last point and figures, hyper-parameters with final metrics, and the summary."""
        self.clock.stop()
        if self._board is None:
            return
        if self._step % self.every:
            self._log_point(self._board, trainer)
        if not self.figures_every or self._step % self.figures_every:  # else just drawn
            self._draw_trajectories(self._board)
        data, mixing, step = self._data, self.mixing, self._step
        self.pictures.draw_early_and_late(self._board, data.domains, step)
        flops = training_flops(mixing.model, mixing.collector, data.context, step)
        validations = self.history.validations
        at_end = bool(validations) and validations[-1].step == step  # a resume may end without
        effective, losses = mixing.effective.numpy(), self.perplexity.losses if at_end else {}
        self.summary = summarise_run(data, effective, losses, step, self.clock.seconds, flops)
        # A group of their own: `validation/mean_loss` is a curve, this is its end.
        metrics = {f"final/{name}": value for name, value in self.summary.metrics.items()}
        hyperparameters = {"mixer": self.summary.mixer, **self.hyperparameters}
        self._logger.log_hyperparams(hyperparameters, metrics, step=step)
        for other in self._others:
            other.log_hyperparams(hyperparameters)
            other.log_metrics(metrics, step)
        self.history.write(self._run_folder)
        write_summary(self.summary, self._run_folder)
        self._board.flush()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Writes every point to the disk: a run that resumes from here will not write them."""
        if self._board is not None:
            self._board.flush()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the summary, now that progress bars have left the screen."""
        if self.print_at_end and self.summary is not None and self._board is not None:
            runs_folder = self.runs_folder or Path(self._logger.save_dir)
            print_summary(self.summary, self._run_folder, runs_folder)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Frees the event file; a validation after the run is not reported."""
        if stage == "fit":
            self.clock.stop()
            self._board = None

    def state_dict(self) -> dict[str, Any]:
        """Trajectories, sums since the last point, windows, seconds: tensors and numbers."""
        parts = {name: getattr(self, name).state_dict() for name in STATEFUL}
        return {**parts, "seconds": self.clock.seconds, "last_point": list(self._last_point)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues what ``state_dict`` gave."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state_dict[name])
        self.clock = TrainingClock(float(state_dict["seconds"]))
        self._last_point = tuple(state_dict["last_point"])

    def _log_point(self, board: Board, trainer: Trainer) -> None:
        data, sampler, step = self._data, self._data.sampler, self._step
        weights = data.mixer.weights.numpy() if data.mixer.is_proxy else sampler.weights
        self.history.add(step, weights, sampler.realised, self.mixing.effective.numpy())
        tokens = sampler.realised * data.context
        point = dict[str, float]()
        for group, values in (
            ("weights", data.mixer.weights.numpy()),
            ("sampling", sampler.weights),
            ("realised", self.history.realised[-1]),
            ("effective", self.history.effective[-1]),
            ("tokens", tokens),
            ("epochs", sampler.epochs),
        ):
            point |= by_domain(group, data.domains, values)
            if group != "epochs":
                point |= by_level(group, data.domains, values)
        point |= grouped("mixer", diagnostics_of(data.mixer))
        point |= grouped("limits", data.mixer.prices)
        point |= grouped("train", self._training_scalars(trainer))
        before_tokens, before_seconds = self._last_point
        total, seconds = self._last_point = (int(tokens.sum()), self.clock.seconds)
        if seconds > before_seconds:
            speed = (total - before_tokens) / (seconds - before_seconds)
            point["speed/tokens_per_second"] = speed
        board.scalars(point, step)

    def _training_scalars(self, trainer: Trainer) -> dict[str, float]:
        scalars = {}
        means = self.losses.take()
        if means is not None:
            scalars["loss"], weighted = means
            if self._data.mixer.acts(LOSS):
                scalars["weighted_loss"] = weighted
        skipped = getattr(self.mixing.model, "skipped", None)
        if skipped is not None and skipped.any():
            scalars["skipped_steps"] = float(skipped[0])
        if trainer.optimizers:
            scalars["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        return scalars

    def _window_ends(self) -> bool:
        every, window = self.mixing.observe_every, self.mixing.observe_window
        return bool(every) and (self._step % every == 0 or self._step == window)

    def _draw_window(self, board: Board) -> None:
        observed = self.window.take()
        if observed is None:
            logger.warning(
                "step %d: no finite gradient sketches to draw; look at train/loss", self._step
            )
            return
        mixer = snapshot_of(self._data.mixer)
        scalars = self.pictures.draw_window(board, observed, mixer, self._data.domains, self._step)
        board.scalars(grouped("observed", scalars), self._step)

    def _draw_trajectories(self, board: Board) -> None:
        mixer, names, step = self._data.mixer, self._data.domains, self._step
        if self.history.steps:
            draw_trajectories(board, self.history, names, step, live=not mixer.is_proxy)
        snapshot = snapshot_of(mixer)
        draw_schedule(board, snapshot, step)
        if not self.mixing.observe_every:
            draw_own_graph(board, snapshot, names, step)
