"""Runs a checked recipe: prepare, build, train, report."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Sequence
from inspect import signature
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from tensorboard.summary.writer import event_file_writer

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.store import Store
from dograph.data.data_mixer import DataMixer
from dograph.data.loaders import loader_errors
from dograph.errors import UserError, file_errors, memory_errors
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.experiments.provenance import Provenance, run_inputs
from dograph.experiments.recipe.check import Recipe, located
from dograph.experiments.run_folder import check_inside, checkpoint_to_resume, claimed, place_for
from dograph.files.checksums import facts_digest
from dograph.files.run_dir import CHECKPOINTS, FINAL_CHECKPOINT
from dograph.reports.event_files import settle_event_files
from dograph.reports.progress import StepProgressBar
from dograph.reports.summary import RunSummary, print_summary
from dograph.reports.tensorboard import MixtureReport
from dograph.training.checkpoint import newest_sound
from dograph.training.checkpointing import (
    AtomicCheckpoints,
    CheckpointSaver,
    Interrupted,
    remove_partial,
    restore_errors,
)
from dograph.training.language_model import LanguageModel, build_network, check_schedule, takes
from dograph.training.mixing_callback import MixingCallback
from dograph.training.non_finite import NonFiniteGuard

SHARDED = ("fsdp", "model_parallel", "modelparallel", "deepspeed")
"""Strategies that write their own checkpoints, in parts."""
GOES_ON = "give the same command again: it goes on from its newest checkpoint"


def run(recipe: Recipe, resume: Path | None = None) -> Path:
    """Trains what a recipe of one run describes, reports it and prints the end.

    A run of the same recipe that did not come to its end is gone on with, from its newest
    checkpoint that is whole, or from its start if there is none.

    Args:
        recipe: checked.
        resume: folder of a run to go on with, whatever its recipe was.

    Returns:
        the finished run's folder.

    Raises:
        UserError: for mistakes that show only now, before any training.
        Interrupted: on a signal, with the checkpoint's path.
    """
    quieten()
    check_buildable(recipe)
    check_batch(recipe)
    steps = recipe.arguments("trainer")["max_steps"]
    checkpoint: Path | None = None
    if resume is not None:
        folder, checkpoint = resume, checkpoint_to_resume(resume, steps)
    else:
        store = prepare(recipe.corpus)
        digest = facts_digest(run_inputs(recipe.composition.values, store))
        folder = place_for(recipe.runs / recipe.name, recipe.seed, digest)
    with file_errors(folder, "runs", GOES_ON), claimed(folder):
        check_inside(folder)
        remove_partial(folder)
        if resume is not None:
            store = prepare(recipe.corpus)  # now that nobody else runs in the folder
        else:
            if place_for(recipe.runs / recipe.name, recipe.seed, digest) != folder:
                raise UserError(f"{folder}: another command was quicker; give this one again")
            checkpoint = newest_sound(folder, below=steps)
        if checkpoint is not None:
            say(f"goes on from {checkpoint}")
        summary = train(recipe, store, folder, checkpoint)
    if summary is not None:
        print_summary(summary, folder, recipe.runs)
    return folder


@rank_zero_only
def say(text: str) -> None:
    """Prints a line, once."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def train(
    recipe: Recipe,
    store: Store,
    folder: Path,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callback] = (),
    stops: bool = False,
) -> RunSummary | None:
    """One training run: build, fit, save ``checkpoints/final.ckpt``.

    Args:
        recipe: checked, and its network buildable.
        store: the recipe's corpus, prepared.
        folder: of the run.
        checkpoint: to go on from.
        callbacks: more of them, called after the recipe's own.
        stops: whether a signal that comes too late to stop training is raised at its end.

    Returns:
        the run's numbers, on rank zero.

    Raises:
        UserError: for mistakes that show only now, before any training; later where the system
            refuses a file, a loader process dies or the numbers are not finite.
        Interrupted: on SIGINT or SIGTERM, with the checkpoint's path.
    """
    quieten()
    data = build_data(recipe)
    data.store = store
    logger = TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
    own_callbacks, report, saver = build_callbacks(recipe, folder)
    trainer = build_trainer(recipe, logger, own_callbacks)
    recipe.mixer.check(data.batch_size * trainer.world_size)
    # Provenance comes last: until it is written, a run has not begun.
    trainer.callbacks += [*callbacks, Provenance(folder, recipe, store)]  # type: ignore[attr-defined]
    seed_everything(recipe.seed, workers=True, verbose=False)
    with memory_errors():
        model = build_model(recipe, store, data.context)
    with (
        restore_errors(checkpoint, saver),  # takes what none of the others knows
        memory_errors(),
        file_errors(folder, "runs", GOES_ON),
        loader_errors(data.workers),
    ):
        if trainer.is_global_zero:
            settle_event_files(folder)
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / FINAL_CHECKPOINT, weights_only=False)
    if stops and saver.asked_to_stop(trainer):
        raise Interrupted(folder / FINAL_CHECKPOINT, finished=True)
    return report.summary if trainer.is_global_zero else None


def quieten() -> None:
    """Silences advice that a recipe has already settled."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # DataMixer's own state makes the loader resumable, and a resumed run's folder is not empty.
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty.*")
    threading.excepthook = _say_in_threads
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")


def _say_in_threads(arguments: threading.ExceptHookArgs) -> None:
    """Prints a thread's error, but for TensorBoard's writer, which raises it where it matters."""
    writes_events = type(arguments.thread).__module__ == event_file_writer.__name__
    if not (writes_events and isinstance(arguments.exc_value, OSError)):
        threading.__excepthook__(arguments)


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
    wants_bar = recipe.arguments("trainer")["enable_progress_bar"] is not False
    saver = CheckpointSaver(
        folder / CHECKPOINTS,
        settings.checkpoint_every,
        settings.checkpoint_minutes,
        settings.checkpoints_kept,
    )
    watch = NonFiniteGuard(folder, settings.non_finite_limit)
    bar = [StepProgressBar(perplexity)] if wants_bar else []
    # The saver comes last: what it saves, the others have then counted.
    return [mixing, watch, perplexity, report, *bar, saver], report, saver


def build_data(recipe: Recipe) -> DataMixer:
    """The recipe's DataMixer; it prepares nothing yet."""
    given = {"mixer": recipe.mixer, "corpus": recipe.corpus, "seed": recipe.seed}
    data: DataMixer = located(
        recipe.composition, "data", DataMixer, {**given, **recipe.arguments("data")}
    )
    return data


def build_trainer(
    recipe: Recipe, logger: TensorBoardLogger | bool, callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer with the recipe's arguments and ours.

    Raises:
        UserError: if Lightning refuses an argument.
    """
    origin = recipe.composition.origin("trainer")
    try:
        arguments = recipe.trainer_arguments()
        plugins = arguments.pop("plugins", None) or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if not is_sharded(arguments["strategy"]):
            plugins.append(AtomicCheckpoints())
        return Trainer(
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
        raise UserError(f"{origin}: trainer: {error}") from error


def is_sharded(strategy: str | Strategy) -> bool:
    """Whether a strategy writes its own checkpoints."""
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    return name.lower().startswith(SHARDED)


def check_buildable(recipe: Recipe) -> None:
    """Builds the network without memory, so that a mistake shows before a corpus is prepared.

    Raises:
        UserError: naming the file, for a model's configuration or a run without a length.
    """
    steps = recipe.arguments("trainer")["max_steps"]
    if not (steps or 0) > 0:
        origin = recipe.composition.origin("trainer.max_steps")
        raise UserError(f"{origin}: trainer.max_steps is {steps}: set it ≥ 1")
    arguments = recipe.arguments("model")
    schedule = {key: arguments[key] for key in signature(check_schedule).parameters}
    located(recipe.composition, "model", check_schedule, schedule)
    try:
        with torch.device("meta"):
            build_network(arguments["architecture"], arguments["config"] or {}, None)
    except UserError as error:
        raise UserError(f"{recipe.composition.origin('model.config')}: {error}") from error


def check_batch(recipe: Recipe) -> None:
    """Checks loaders and the mixer's settings against the global batch of this machine's devices.

    Raises:
        UserError: for what Lightning, the data or the mixer refuse.
    """
    processes = build_trainer(recipe, logger=False, callbacks=[]).world_size
    sequences = build_data(recipe).batch_size * processes
    located(recipe.composition, "mixer.init_args", recipe.mixer.check, {"batch_size": sequences})


def build_model(recipe: Recipe, store: Store, context: int) -> LanguageModel:
    """The model, sized for the store's vocabulary and the data's context.

    Raises:
        UserError: if the recipe sets either too small.
    """
    arguments = recipe.arguments("model")
    config = dict(arguments.pop("config") or {})
    for key, value in (
        ("vocab_size", store.vocab_size),
        ("max_position_embeddings", context),
        ("bos_token_id", store.end_of_text),
        ("eos_token_id", store.end_of_text),
    ):
        if takes(arguments["architecture"], key):
            config.setdefault(key, value)
    model = LanguageModel(config=config, **arguments)
    origin = recipe.composition.origin("model.config")
    if model.vocab_size < store.vocab_size:
        raise UserError(
            f"{origin}: model.config.vocab_size is {model.vocab_size}, but the tokens in "
            f"{store.path} go up to {store.vocab_size}: leave it out, or prepare the corpus with "
            "the model's tokenizer"
        )
    if model.context is not None and model.context < context:
        raise UserError(
            f"{origin}: the model takes {model.context} tokens, but data.context is {context}"
        )
    return model
