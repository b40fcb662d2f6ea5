"""The parts of one training run, built from a checked recipe."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from dograph.data.corpus.store import Store
from dograph.data.data_mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.section import build
from dograph.files.run_dir import CHECKPOINTS
from dograph.reports.mixture_report import MixtureReport
from dograph.reports.progress import StepProgressBar
from dograph.training.checkpoint_writer import AtomicCheckpoints, CheckpointSaver
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback
from dograph.training.network import takes
from dograph.training.non_finite import NonFiniteGuard

SHARDED = ("fsdp", "model_parallel", "modelparallel", "deepspeed")
"""Strategies that write their own checkpoints, in parts."""


def build_data(recipe: Recipe) -> DataMixer:
    """The recipe's DataMixer; it prepares nothing yet."""
    arguments = {"mixer": recipe.mixer, "corpus": recipe.corpus, "seed": recipe.seed}
    arguments |= recipe.arguments("data")
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
    bar = [StepProgressBar(perplexity)] if has_bar else []
    # The saver comes last: by then the others have counted the step it saves.
    return [mixing, guard, perplexity, report, *bar, saver], report, saver


def build_trainer(
    recipe: Recipe, logger: TensorBoardLogger | bool, callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer with the recipe's arguments and ours."""
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
        raise UserError(f"{recipe.composition.origin('trainer')}: trainer: {error}") from error


def is_sharded(strategy: str | Strategy) -> bool:
    """Whether a strategy writes its own checkpoints."""
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    return name.lower().startswith(SHARDED)


def check_batch(recipe: Recipe) -> None:
    """Check loaders and the mixer's settings against the global batch of this machine's devices."""
    processes = build_trainer(recipe, logger=False, callbacks=[]).world_size
    sequences = build_data(recipe).batch_size * processes
    build(recipe.composition, "mixer.init_args", recipe.mixer.check, {"batch_size": sequences})


def build_model(recipe: Recipe, store: Store, context: int) -> LanguageModel:
    """The model, sized for the store's vocabulary and the data's context."""
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
            f"{origin}: model.config allows {model.context} tokens, but data.context is {context}: "
            "lower data.context, or leave the model's own maximum out"
        )
    return model
