"""Runs a checked recipe: prepare, build, train, report."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tensorboard.summary.writer import event_file_writer

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store
from dograph.data.data_mixer import DataMixer
from dograph.data.loaders import loader_errors
from dograph.errors import UserError, file_errors, memory_errors
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.experiments.forecast.opening import OpeningLines
from dograph.experiments.open_run import RESUMES, check_resumable, open_run, place_for
from dograph.experiments.provenance import Provenance
from dograph.experiments.rank_zero import rank_zero_print
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.domains import check_domains, check_source_domains
from dograph.experiments.recipe.loggers import finish
from dograph.experiments.recipe.section import build
from dograph.experiments.resume import check_inputs, check_keys, note_packages, passed_over
from dograph.experiments.run_inputs import RunInputs
from dograph.experiments.run_page.page import write_page
from dograph.files.run_dir import CHECKPOINTS, FINAL_CHECKPOINT
from dograph.mixers.user_code import mixer_errors
from dograph.reports.domain_logger import DomainLogger
from dograph.reports.mixture_report import MixtureReport
from dograph.reports.progress import training_progress
from dograph.reports.summary import RunSummary, print_summary
from dograph.reports.tensorboard import settle_event_files
from dograph.training.checkpoint_writer import (
    AtomicCheckpoints,
    CheckpointSaver,
    Interrupted,
    restore_errors,
)
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback
from dograph.training.network import own_name, takes
from dograph.training.non_finite import NonFiniteGuard

SHARDED = ("fsdp", "model_parallel", "modelparallel", "deepspeed")
"""Strategies that write their own checkpoints, in parts."""


def run(recipe: Recipe, resume: Path | None = None) -> Path:
    """Train what a recipe of one run describes, report it and print the end.

    An unfinished run of the same recipe is resumed from its newest sound checkpoint, or begins
    again if it has none; the run in the folder ``resume``, whatever its recipe was. Returns the
    run's folder.

    Raises:
        UserError: for mistakes that show only now, before any training.
        Interrupted: on a signal, with the checkpoint's path.
    """
    quieten()
    check_batch(recipe)
    if resume is not None:
        check_resumable(resume, recipe.steps)
        check_keys(resume, recipe)
    check_source_domains(recipe)
    store = prepare(recipe.corpus)
    check_domains(recipe, store)
    inputs = RunInputs(recipe.composition.values, store)
    place = partial(place_for, recipe.runs / recipe.name, recipe.seed, inputs)
    folder = place() if resume is None else resume
    with open_run(folder, recipe.steps) as checkpoint:
        if resume is None and place() != folder:
            raise UserError(f"{folder}: another command was quicker; give this one again")
        if resume is not None:
            check_inputs(resume, inputs)
        elif checkpoint is None:
            for sentence in passed_over(recipe.runs / recipe.name, recipe.seed, inputs):
                rank_zero_print(sentence)
        if checkpoint is not None:
            note_packages(folder)
            rank_zero_print(f"resumes from {checkpoint}")
        summary = train(recipe, store, folder, checkpoint, inputs=inputs)
    if summary is not None:
        print_summary(summary, folder, recipe.runs)
    return folder


def train(
    recipe: Recipe,
    store: Store,
    folder: Path,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callback] = (),
    stops: bool = False,
    inputs: RunInputs | None = None,
) -> RunSummary | None:
    """Train once: build, fit, save the final checkpoint; return the run's numbers on rank zero.

    Args:
        recipe: a checked recipe.
        store: its corpus, prepared.
        folder: where the run writes.
        checkpoint: to resume from.
        callbacks: called after the recipe's own.
        stops: whether a signal that comes too late to stop training is raised at its end.
        inputs: what decides its numbers. None: the recipe and the corpus, without earlier stages.

    Raises:
        UserError: if the system refuses a file, a loader process dies, or numbers are not finite.
        Interrupted: on SIGINT or SIGTERM, with the checkpoint's path.
    """
    quieten()
    data = build_data(recipe)
    data.store = store
    logger = DomainLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
    others = [settings.build(folder) for settings in recipe.loggers]
    own, report, saver = build_callbacks(recipe, folder)
    trainer = build_trainer(recipe, [logger, *others], own)
    with mixer_errors(recipe.mixer):
        recipe.mixer.check(data.batch_size * trainer.world_size)
    # Provenance comes last: until it is written, a run has not begun.
    inputs = inputs or RunInputs(recipe.composition.values, store)
    trainer.callbacks += [*callbacks, Provenance(folder, recipe, inputs)]  # type: ignore[attr-defined]
    seed_everything(recipe.seed, workers=True, verbose=False)
    with memory_errors():
        model = build_model(recipe, store, data.context)
    _fit(trainer, model, data, folder, checkpoint, saver)
    for other in others:
        finish(other)
    if trainer.is_global_zero:
        with file_errors(folder, "runs", f"write its page with `dograph report {folder}`"):
            write_page(folder)
    if stops and saver.asked_to_stop(trainer):
        raise Interrupted(folder / FINAL_CHECKPOINT, finished=True)
    return report.summary if trainer.is_global_zero else None


def _fit(
    trainer: Trainer,
    model: LanguageModel,
    data: DataMixer,
    folder: Path,
    checkpoint: Path | None,
    saver: CheckpointSaver,
) -> None:
    """Fit, and save the final checkpoint; errors the user can fix become UserErrors."""
    with (
        restore_errors(checkpoint, saver),  # takes what none of the others knows
        memory_errors(),
        file_errors(folder, "runs", RESUMES),
        loader_errors(data.workers),
        mixer_errors(data.mixer, lambda: f"after {trainer.global_step} steps"),
    ):
        saver.resumes_from = checkpoint
        if trainer.is_global_zero:
            settle_event_files(folder)
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / FINAL_CHECKPOINT, weights_only=False)


def quieten() -> None:
    """Silence advice on what a recipe has already settled."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        # DataMixer's own state makes the loader resumable, and a resumed run's folder has files.
        ".*dataloader is not resumable.*",
        "Checkpoint directory .* is not empty.*",
        "Total length of `list` across ranks is zero.*",  # without held-out text
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", message=message)
    threading.excepthook = _print_thread_error


def _print_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """Print a thread's error, except TensorBoard's writer's: it is raised where it matters."""
    writes_events = type(arguments.thread).__module__ == event_file_writer.__name__
    if not (writes_events and isinstance(arguments.exc_value, OSError)):
        threading.__excepthook__(arguments)


def build_data(recipe: Recipe) -> DataMixer:
    """The recipe's DataMixer; it prepares nothing yet."""
    own = {
        "mixer": recipe.mixer,
        "corpus": recipe.corpus,
        "seed": recipe.seed,
        "target": recipe.target.value,
        "limits": recipe.limits,
    }
    arguments = own | recipe.arguments("data")
    data: DataMixer = build(recipe.composition, "data", DataMixer, arguments)
    return data


def build_callbacks(
    recipe: Recipe, folder: Path
) -> tuple[list[Callback], MixtureReport, CheckpointSaver]:
    """The run's callbacks in the order in which they must act: mixing, numbers, checkpoints."""
    settings = recipe.report
    mixing = MixingCallback(recipe.sketch, settings.figures_every, settings.window)
    perplexity = DomainPerplexity()
    report = MixtureReport(
        mixing,
        perplexity,
        every=settings.every,
        figures_every=settings.figures_every,
        hyperparameters=recipe.composition.values,
        seed=recipe.seed,
        print_at_end=False,
    )
    saver = CheckpointSaver(
        folder / CHECKPOINTS,
        settings.checkpoint_every,
        settings.checkpoint_minutes,
        settings.checkpoints_kept,
    )
    guard = NonFiniteGuard(folder, settings.non_finite_limit)
    has_bar = recipe.arguments("trainer")["enable_progress_bar"] is not False
    bar = [training_progress(perplexity, mixing, settings.line_seconds)] if has_bar else []
    # The saver comes last: by then the others have counted the step it saves.
    return [mixing, OpeningLines(mixing), guard, perplexity, report, *bar, saver], report, saver


def build_trainer(
    recipe: Recipe, logger: list[Logger] | bool, callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer with the recipe's arguments and ours."""
    try:
        arguments = recipe.trainer_arguments()
        plugins = arguments.pop("plugins", None) or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if not is_sharded(arguments["strategy"]):
            plugins.append(AtomicCheckpoints())
        trainer = Trainer(
            **arguments,
            plugins=plugins,
            max_epochs=-1,
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"{recipe.composition.origin('trainer')}: trainer: {error}") from error
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"{recipe.composition.origin('trainer.strategy')}: trainer.strategy is "
            f"{arguments['strategy']}, whose ranks keep what they have trained to themselves: set "
            "it to ddp"
        )
    return trainer


def is_sharded(strategy: str | Strategy) -> bool:
    """Whether a strategy writes its own checkpoints, in parts."""
    if isinstance(strategy, ModelParallelStrategy):
        return strategy._save_distributed_checkpoint
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    return name.lower().startswith(SHARDED)


def check_batch(recipe: Recipe) -> None:
    """Check loaders and the mixer's settings against the global batch of this machine's devices."""
    processes = build_trainer(recipe, logger=False, callbacks=[]).world_size
    sequences = build_data(recipe).batch_size * processes
    with mixer_errors(recipe.mixer):
        build(recipe.composition, "mixer.init_args", recipe.mixer.check, {"batch_size": sequences})


def model_arguments(
    recipe: Recipe, vocab_size: int, end_of_text: int, context: int
) -> dict[str, Any]:
    """Arguments of the model, sized for a vocabulary and the data's context.

    A pretrained model keeps its own vocabulary and context.
    """
    arguments = recipe.arguments("model")
    if arguments["pretrained"] is not None:
        return arguments | {"config": dict(arguments["config"] or {})}
    config, architecture = dict(arguments["config"] or {}), arguments["architecture"]
    given = {own_name(architecture, key) for key in config}
    for key, value in (
        ("vocab_size", vocab_size),
        ("max_position_embeddings", context),
        ("bos_token_id", end_of_text),
        ("eos_token_id", end_of_text),
    ):
        if takes(architecture, key) and own_name(architecture, key) not in given:
            config[key] = value
    return {**arguments, "config": config}


def build_model(recipe: Recipe, store: Store, context: int) -> LanguageModel:
    """The model, sized for the store's vocabulary and the data's context."""
    sizes = store.vocab_size, store.end_of_text, context
    model = LanguageModel(**model_arguments(recipe, *sizes))
    origin = recipe.composition.origin("model.config")
    if model.vocab_size < store.vocab_size:
        raise UserError(
            f"{origin}: model.config.vocab_size is {model.vocab_size}, but the tokens in "
            f"{store.path} go up to {store.vocab_size}: leave it out, or prepare the corpus with "
            "the model's tokenizer"
        )
    if model.context is not None and model.context < context:
        raise UserError(
            f"{origin}: model.config allows {model.context} tokens, but data.context is {context}: "
            "lower data.context, or leave the model's own maximum out"
        )
    return model
