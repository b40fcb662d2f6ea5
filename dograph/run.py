"""Runs a checked recipe: prepare, build, train, report."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from dograph.corpus.prepare import prepare
from dograph.corpus.store import Store
from dograph.data.mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.mixing import MixingCallback
from dograph.model import LanguageModel
from dograph.recipe import Recipe
from dograph.report.progress import StepProgressBar
from dograph.report.summary import print_summary
from dograph.report.tensorboard import MixtureReport

VERSIONS_OF = ("dograph", "lightning", "torch", "transformers", "litdata", "cvxpylayers")


class Interrupted(Exception):  # noqa: N818  (an event, not an error)
    """Training stopped on a signal; its checkpoint is saved."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM finishes the step, saves a checkpoint and stops.

    Args:
        folder: where the checkpoint goes.
    """

    def __init__(self, folder: Path) -> None:
        self.checkpoint = folder / "interrupted.ckpt"
        self.received = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals."""
        for kind in (signal.SIGINT, signal.SIGTERM):
            self._before[kind] = signal.signal(kind, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        Console(stderr=True).print(
            "\nStopping after this step to save a checkpoint (again to stop at once)."
        )

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Saves and stops, once the step is whole."""
        if self.received:
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
            raise Interrupted(self.checkpoint)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        self._before = {}


@dataclass
class Run:
    """A run's folder and its parts, ready to fit."""

    folder: Path
    trainer: Trainer
    model: LanguageModel
    data: DataMixer
    report: MixtureReport


def run(recipe: Recipe, resume: Path | None = None) -> Run:
    """Trains what a recipe describes and reports it.

    Args:
        recipe: checked.
        resume: folder of an interrupted run, to go on from its newest checkpoint.

    Returns:
        the finished run.

    Raises:
        UserError: for mistakes that show only now, before any training.
        Interrupted: on SIGINT or SIGTERM, with the checkpoint's path.
    """
    quieten()
    checkpoint = newest_checkpoint(resume) if resume else None
    data = DataMixer(
        mixer=recipe.mixer, corpus=recipe.corpus, seed=recipe.seed, **recipe.arguments("data")
    )
    folder = resume or free_folder(recipe.runs / recipe.name, f"seed_{recipe.seed}")
    logger = TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
    callbacks, mixture_report = build_callbacks(recipe, folder)
    trainer = build_trainer(recipe, logger, callbacks)
    if checkpoint is not None:
        check_unfinished(checkpoint, recipe)
    recipe.mixer.check(data.batch_size * trainer.world_size)
    store = prepare(recipe.corpus)
    seed_everything(recipe.seed, workers=True, verbose=False)
    model = build_model(recipe, store, data.context)
    write_provenance(folder, recipe, store)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / "checkpoints" / "final.ckpt", weights_only=False)
    if mixture_report.summary is not None and trainer.is_global_zero:
        print_summary(mixture_report.summary, folder, recipe.runs)
    return Run(folder, trainer, model, data, mixture_report)


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
        StepProgressBar(perplexity),
        StopOnSignal(checkpoints),
        newest,
    ], report


def build_trainer(recipe: Recipe, logger: TensorBoardLogger, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer with the recipe's arguments and ours.

    Raises:
        UserError: if Lightning refuses an argument, or no length is given.
    """
    arguments = recipe.arguments("trainer")
    origin = recipe.composition.origin("trainer")
    if not (arguments["max_steps"] or 0) > 0:
        raise UserError(f"{origin}: trainer.max_steps is {arguments['max_steps']}: set it ≥ 1")
    try:
        return Trainer(
            **arguments,
            max_epochs=-1,
            logger=logger,
            callbacks=callbacks,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"{origin}: trainer: {error}") from error


def build_model(recipe: Recipe, store: Store, context: int) -> LanguageModel:
    """The model, sized for the store's vocabulary and the data's context.

    Raises:
        UserError: if the recipe sets either too small.
    """
    arguments = recipe.arguments("model")
    config = dict(arguments.pop("config") or {})
    config.setdefault("vocab_size", store.vocab_size)
    config.setdefault("max_position_embeddings", context)
    config.setdefault("bos_token_id", store.end_of_text)
    config.setdefault("eos_token_id", store.end_of_text)
    model = LanguageModel(config=config, **arguments)
    origin = recipe.composition.origin("model.config")
    if model.vocab_size < store.vocab_size:
        raise UserError(
            f"{origin}: model.config.vocab_size is {model.vocab_size}, but the tokens in "
            f"{store.path} go up to {store.vocab_size}: leave it out, or prepare the corpus with "
            "the model's tokenizer"
        )
    if model.context < context:
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
    found = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError(f"{folder}: no checkpoint in its folder checkpoints, nothing to resume")
    return found[-1]


def check_unfinished(checkpoint: Path, recipe: Recipe) -> None:
    """Raises UserError if a checkpoint has already done all the recipe's steps."""
    done = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    asked = recipe.arguments("trainer")["max_steps"]
    if done >= asked:
        raise UserError(
            f"{checkpoint}: this run has done its {done} steps: raise trainer.max_steps to go on"
        )


def write_provenance(folder: Path, recipe: Recipe, store: Store) -> None:
    """Writes the resolved recipe and where everything came from into the run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe.as_yaml())
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    facts = {
        "seed": recipe.seed,
        "corpus": str(store.path),
        "fingerprint": store.fingerprint,
        "tokenizer": store.tokenizer_hash,
        "commit": commit or None,
        "versions": {name: version(name) for name in VERSIONS_OF},
    }
    (folder / "provenance.json").write_text(json.dumps(facts, indent=1) + "\n")
