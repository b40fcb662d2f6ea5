"""Runs a checked recipe: prepare, build, train, report."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from dograph.checkpoint import FINAL_CHECKPOINT
from dograph.corpus.prepare import prepare
from dograph.corpus.store import Store
from dograph.data.mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.interruption import StopOnSignal
from dograph.mixing import MixingCallback
from dograph.model import LanguageModel, build_network, takes
from dograph.provenance import Provenance
from dograph.recipe import Recipe
from dograph.report.progress import StepProgressBar
from dograph.report.summary import RunSummary, print_summary
from dograph.report.tensorboard import MixtureReport


def run(recipe: Recipe, resume: Path | None = None) -> Path:
    """Trains what a recipe of one run describes, reports it and prints the end.

    Args:
        recipe: checked.
        resume: folder of an interrupted run, to go on from its newest checkpoint.

    Returns:
        the finished run's folder.

    Raises:
        UserError: for mistakes that show only now, before any training.
        Interrupted: on SIGINT or SIGTERM, with the checkpoint's path.
    """
    checkpoint = newest_checkpoint(resume) if resume else None
    if checkpoint is not None:
        check_unfinished(checkpoint, recipe)
    folder = resume or free_folder(recipe.runs / recipe.name, f"seed_{recipe.seed}")
    summary = train(recipe, folder, checkpoint)
    if summary is not None:
        print_summary(summary, folder, recipe.runs)
    return folder


def train(
    recipe: Recipe, folder: Path, checkpoint: Path | None = None, callbacks: Sequence[Callback] = ()
) -> RunSummary | None:
    """One training run: prepare, build, fit, save ``checkpoints/final.ckpt``.

    Args:
        recipe: checked.
        folder: of the run.
        checkpoint: to go on from.
        callbacks: more of them, called after the recipe's own.

    Returns:
        the run's numbers, on rank zero.

    Raises:
        UserError: for mistakes that show only now, before any training.
        Interrupted: on SIGINT or SIGTERM, with the checkpoint's path.
    """
    quieten()
    data = DataMixer(
        mixer=recipe.mixer, corpus=recipe.corpus, seed=recipe.seed, **recipe.arguments("data")
    )
    check_buildable(recipe)
    logger = TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
    own_callbacks, report = build_callbacks(recipe, folder)
    trainer = build_trainer(recipe, logger, own_callbacks)
    recipe.mixer.check(data.batch_size * trainer.world_size)
    store = prepare(recipe.corpus)
    trainer.callbacks += [Provenance(folder, recipe, store), *callbacks]  # type: ignore[attr-defined]
    seed_everything(recipe.seed, workers=True, verbose=False)
    model = build_model(recipe, store, data.context)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / FINAL_CHECKPOINT, weights_only=False)
    return report.summary if trainer.is_global_zero else None


def quieten() -> None:
    """Silences advice that a recipe has already settled."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # DataMixer's own state makes the loader resumable, and a resumed run's folder is not empty.
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")


def build_callbacks(recipe: Recipe, folder: Path) -> tuple[list[Callback], MixtureReport]:
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
    checkpoints = folder / "checkpoints"
    newest = ModelCheckpoint(
        checkpoints,
        filename="{step}",
        monitor="step",
        mode="max",
        every_n_train_steps=settings.checkpoint_every,
        save_top_k=settings.checkpoints_kept,
        save_on_train_epoch_end=True,
    )
    return [
        mixing,
        perplexity,
        report,
        StopOnSignal(checkpoints),
        *([StepProgressBar(perplexity)] if wants_bar else []),
        newest,
    ], report


def build_trainer(recipe: Recipe, logger: TensorBoardLogger, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer with the recipe's arguments and ours.

    Raises:
        UserError: if Lightning refuses an argument.
    """
    origin = recipe.composition.origin("trainer")
    try:
        return Trainer(
            **recipe.arguments("trainer"),
            max_epochs=-1,
            logger=logger,
            callbacks=callbacks,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"{origin}: trainer: {error}") from error


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
    try:
        with torch.device("meta"):
            build_network(arguments["architecture"], arguments["config"] or {}, None)
    except UserError as error:
        raise UserError(f"{recipe.composition.origin('model.config')}: {error}") from error


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


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or the first of ``name_1``, ``name_2`` … that does not exist."""
    folder, count = parent / name, 0
    while folder.exists():
        count += 1
        folder = parent / f"{name}_{count}"
    return folder


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run folder.

    Raises:
        UserError: if there is none.
    """
    found = newest_checkpoints(folder)
    if not found:
        raise UserError(f"{folder}: no checkpoint in its folder checkpoints, nothing to resume")
    return found[0]


def newest_checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, newest first."""
    found = (folder / "checkpoints").glob("*.ckpt")
    return sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)


def check_unfinished(checkpoint: Path, recipe: Recipe) -> None:
    """Raises UserError if a checkpoint has already done all the recipe's steps."""
    done = steps_done(checkpoint)
    if done >= recipe.arguments("trainer")["max_steps"]:
        raise UserError(
            f"{checkpoint}: this run has done its {done} steps: raise trainer.max_steps to go on"
        )


def steps_done(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return int(content["global_step"])
