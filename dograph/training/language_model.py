"""A causal language model from transformers as a LightningModule that knows nothing of mixing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from dograph.data.batch import Batch
from dograph.data.corpus.store import Store
from dograph.training.cross_entropy import compiled_token_losses, token_losses
from dograph.training.network import (
    build_network,
    check_causal,
    check_sizes,
    check_vocabulary,
    plain_config,
)
from dograph.training.network_options import (
    balance_coefficient,
    checkpoint_blocks,
    compile_blocks,
)
from dograph.training.optimizers import (
    build_optimizer,
    check_end,
    check_optimizer,
    check_schedule,
    warmup_cosine,
)
from dograph.training.sharding import shard, whole
from dograph.training.step_state import StepState

logger = logging.getLogger(__name__)
ReduceLoss = Callable[[Batch, Tensor], Tensor]
"""From a batch and its (B, T) token losses, with their graph, to the scalar to train on."""


def mean_loss(batch: Batch, token_losses: Tensor) -> Tensor:
    """The mean of all token losses."""
    return token_losses.mean()


class LanguageModel(LightningModule):
    """Trains any causal language model of transformers; knows nothing of mixing.

    A step whose gradients are not finite is skipped by the optimiser, without asking the device.

    Args:
        architecture: transformers' model type, e.g. "gpt2", "llama", "gpt_neox".
        config: what that type's configuration class takes, e.g. {"n_layer": 4, "n_embd": 160}.
        pretrained: a hub name or folder to take weights from instead of random ones.
        learning_rate: peak of the schedule.
        final_learning_rate: at the end of the cosine, at most ``learning_rate``.
        warmup: optimiser steps of linear warm-up.
        weight_decay: on matrices only (parameters of two or more dimensions).
        betas: of AdamW.
        compile: compile the loss and each Transformer block with torch.compile; blocks whose
            gradients are sketched stay as they are.
        optimizer: ``class_path`` of an optimiser in torch.optim and its ``init_args``. None:
            AdamW, fused where it can be.
        gradient_checkpointing: compute each block again in the backward instead of keeping its
            activations.
        attention: transformers' implementation, "eager", "sdpa", "flash_attention_2", …
            None: its choice.

    Attributes:
        reduce_loss: the one seam by which a batch counts otherwise than by its mean;
            ``MixingCallback`` sets it.
        step_state: the optimiser step under way; it is skipped where that is not usable.
        observed_modules: names of layers whose gradients are sketched.
        skipped: (2,) steps skipped in all, and in a row up to now.
        balance_coefficient: factor of the experts' load-balancing loss in the loss that is trained
            on, ``router_aux_loss_coef`` of transformers' configuration; 0 without experts.
    """

    reduce_loss: ReduceLoss

    def __init__(
        self,
        architecture: str = "gpt2",
        config: dict[str, Any] | None = None,
        pretrained: str | None = None,
        learning_rate: float = 1e-3,
        final_learning_rate: float = 1e-4,
        warmup: int = 40,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.95),
        compile: bool = False,
        optimizer: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        attention: str | None = None,
    ) -> None:
        super().__init__()
        # In every checkpoint, so that it can be loaded without its recipe; no logger needs them.
        self.save_hyperparameters(logger=False)
        self.learning_rate, self.final_learning_rate = learning_rate, final_learning_rate
        self.warmup, self.weight_decay, self.betas = warmup, weight_decay, betas
        self._check_schedule()
        check_optimizer(optimizer)
        self.optimizer_settings = optimizer
        self.compile_blocks, self.pretrained = compile, pretrained
        self._token_losses: Callable[[Tensor, Tensor], Tensor] = token_losses
        if not hasattr(type(self), "reduce_loss"):  # a subclass may have a method of that name
            self.reduce_loss = mean_loss
        self.step_state = StepState()
        self.observed_modules: Sequence[str] = ()
        self.skipped = torch.zeros(2)
        self._schedule: torch.optim.lr_scheduler.LambdaLR | None = None
        self._groups: list[tuple[float, dict[str, Any]]] = []
        self.network: Any = build_network(architecture, config or {}, pretrained, attention)
        if gradient_checkpointing:
            checkpoint_blocks(self.network)
        if pretrained is not None:  # a checkpoint is loaded without the pretrained files
            own: Any = self.network.config
            self.hparams.update(
                architecture=own.model_type, config=plain_config(own), pretrained=None
            )
        self.balance_coefficient = balance_coefficient(self.network)
        self._with_balance, self._balance = False, cast("Tensor | None", None)
        check_causal(self.network, pretrained or architecture, self.context)

    def configure_model(self) -> None:
        """Shares the parameters out over the ranks, where the trainer's strategy asks for it."""
        strategy = None if self._trainer is None else self._trainer.strategy
        if isinstance(strategy, ModelParallelStrategy):
            shard(self.network, strategy.device_mesh["data_parallel"])

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return int(self.network.config.vocab_size)

    @property
    def context(self) -> int | None:
        """Longest sequence the model takes, in tokens; None where it has no bound."""
        return getattr(self.network.config, "max_position_embeddings", None)

    def token_losses(self, tokens: Tensor) -> Tensor:
        """(B, T) float32 cross-entropy, in nats, of every next token of (B, T + 1) int64."""
        options = {"output_router_logits": True} if self._with_balance else {}
        output = self.network(input_ids=tokens[:, :-1], use_cache=False, **options)
        if self._with_balance:
            self._balance = output.aux_loss
        return self._token_losses(output.logits, tokens[:, 1:])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Frees the last step's gradients before the forward; Lightning does so after it.

        A backward that is taken with the forward, for sketches, would come on top of them.
        """
        begins = batch_idx % int(self.trainer.accumulate_grad_batches) == 0
        if begins and self.automatic_optimization:
            for optimizer in self.trainer.optimizers:
                optimizer.zero_grad()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's scalar loss; of experts with their load-balancing loss.

        That one is of the whole batch, so that no signal of a sequence has a part of it.
        """
        self._with_balance, self._balance = self.balance_coefficient > 0, None
        try:
            losses = self.token_losses(batch.tokens)
        finally:
            self._with_balance = False
        loss = self.reduce_loss(batch, losses)
        if self._balance is None:
            return loss
        if self._trainer is not None:
            self.log("train/load_balance", self._balance.detach())
        return loss + self.balance_coefficient * self._balance

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """(B, T) token losses of the batch, for whoever evaluates."""
        return self.token_losses(batch.tokens)

    def on_fit_start(self) -> None:
        """Compiles loss and blocks that nothing observes; refuses data the model cannot take."""
        if self._schedule is not None:  # as a subclass may have changed it
            groups = self._schedule.optimizer.param_groups
            keys = "betas", "weight_decay"
            named = [{key: group[key] for key in keys if key in group} for group in groups]
            rates = [float(rate) / self._configured_rate for rate in self._schedule.base_lrs]
            self._groups = [*zip(rates, named, strict=True)]
        data = getattr(self.trainer, "datamodule", None)
        store = getattr(data, "store", None)
        if data is not None and isinstance(store, Store):
            check_sizes(self.vocab_size, self.context, store.vocab_size, data.context)
        if self.pretrained is not None and isinstance(store, Store):
            vocabulary = store.tokenizer().get_vocab(with_added_tokens=True)
            check_vocabulary(self.pretrained, vocabulary)
        if self.dtype == torch.float64 and self.balance_coefficient:
            # Grouped products of matrices know no float64.
            self.network.set_experts_implementation("eager")
        if self.compile_blocks:
            self._token_losses = compiled_token_losses()
            compile_blocks(self.network, self.observed_modules)

    def on_train_start(self) -> None:
        """Has the optimiser and its schedule follow this model's settings.

        A checkpoint restores those that it was written under.
        """
        if self._schedule is None or not self._groups:  # an optimiser of a subclass's, or a search
            return
        self._check_schedule()
        rates = [self.learning_rate * share for share, _ in self._groups]
        groups = self._schedule.optimizer.param_groups
        for group, rate, (_, named) in zip(groups, rates, self._groups, strict=True):
            group.update(
                initial_lr=rate, lr=rate * self._factor(self._schedule.last_epoch), **named
            )
        self._schedule.base_lrs = [*rates]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the trainer asks, and has the optimiser skip a step that is not finite.

        By norm also under bf16-mixed with a fused optimiser: Lightning refuses that pair, since a
        gradient scaler would be bypassed, but bf16 has none. Under fp16 the scaler skips such
        steps itself.
        """
        plugin = self.trainer.precision_plugin
        parameters = list(plugin.main_params(optimizer))
        fsdp1 = isinstance(self.trainer.strategy, FSDPStrategy)
        sharded = fsdp1 or isinstance(self.trainer.strategy, ModelParallelStrategy)
        scaled = getattr(plugin, "scaler", None) is not None
        if gradient_clip_algorithm in (None, "norm") and not fsdp1 and not scaled:
            # Without a bound this only measures; Lightning takes one below 0 for none, too.
            bound = gradient_clip_val if gradient_clip_val and gradient_clip_val > 0 else math.inf
            norm = torch.nn.utils.clip_grad_norm_(parameters, bound)
            wrong = ~whole(norm).isfinite()
        else:  # looked at first: an infinite value is finite once it is clipped
            gradients = [p.grad for p in parameters if p.grad is not None]
            wrong = torch.stack([~whole(each.isfinite().all()) for each in gradients]).any()
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        skip = self._count(wrong, fsdp1)
        if scaled:  # the scaler skips only what it sees itself
            skips = not self.step_state.usable
        elif getattr(optimizer, "_step_supports_amp_scaling", False) and not sharded:
            optimizer.found_inf = skip  # type: ignore[attr-defined]  # what a scaler sets
            return
        else:  # asks the device; without gradients an optimiser does nothing
            skips = bool(skip)
        if skips:
            optimizer.zero_grad()

    def _count(self, wrong: Tensor, sharded: bool) -> Tensor:
        """Counts a step that is not finite, on its device; 1 for one to be skipped, else 0."""
        skip = wrong.float().clamp(min=float(not self.step_state.usable))
        if sharded:
            skip = cast(Tensor, self.trainer.strategy.reduce(skip, reduce_op="max"))
        total, in_a_row = self.skipped.to(skip.device)
        self.skipped = torch.stack([total + skip, (in_a_row + 1) * skip])
        return skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the counts of skipped steps."""
        checkpoint["skipped_steps"] = self.skipped.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores them."""
        total, in_a_row = checkpoint.get("skipped_steps", [0.0, 0.0])
        self.skipped = torch.tensor([float(total), float(in_a_row)])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser (fused AdamW) with decay on matrices only, linear warm-up, cosine."""
        steps = self.trainer.estimated_stepping_batches
        check_end(steps, self.trainer.max_steps)
        # Under a gradient scaler Lightning does not clip what a fused optimiser unscales itself.
        fused = getattr(self.trainer.precision_plugin, "scaler", None) is None
        rates = self.learning_rate, self._weight_decays, self.betas
        optimizer = build_optimizer(self.network, self.optimizer_settings, *rates, fused)
        self._configured_rate, self._groups = self.learning_rate, []
        self._steps = int(steps)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        scheduler: Any = {"scheduler": self._schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _factor(self, step: int) -> float:
        """Of the learning rate after ``step`` steps."""
        final = self.final_learning_rate / self.learning_rate
        return warmup_cosine(step, warmup=self.warmup, total=self._steps, final=final)

    def _check_schedule(self) -> None:
        rates = self.learning_rate, self.final_learning_rate
        check_schedule(*rates, self.warmup, self.weight_decay, self.betas)

    @property
    def _weight_decays(self) -> tuple[float, float]:
        """Of the optimiser's two groups: matrices, and all other parameters."""
        return self.weight_decay, 0.0
