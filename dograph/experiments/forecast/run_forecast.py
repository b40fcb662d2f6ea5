"""What one run will train on and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from dograph.data.corpus.existing_store import expected_vocabulary
from dograph.data.corpus.store import Store
from dograph.data.data_mixer import DataMixer
from dograph.experiments.forecast.devices import Devices
from dograph.experiments.forecast.domains import DomainForecast, forecast_domains
from dograph.experiments.plan import weights_from
from dograph.experiments.recipe.check import Recipe
from dograph.experiments.recipe.section import build
from dograph.experiments.run import build_data, build_model, model_arguments
from dograph.mixers import Stratified
from dograph.mixers.base import SAMPLING
from dograph.mixers.user_code import mixer_errors
from dograph.reports.cost import SignalSetting, flops_with_signals, measured_sequences
from dograph.reports.memory import (
    DeviceMemory,
    Precision,
    checkpoint_bytes,
    device_memory,
    parameter_count,
    signal_bytes,
)
from dograph.signals.batch_signals import DomainGradients, ExcessLoss, Probe, Sketch
from dograph.signals.sketches import SequenceSketcher
from dograph.training.language_model import LanguageModel
from dograph.training.network import network_settings, plain_config

DDP, FSDP, ONE = "ddp", "fsdp", "device"
"""Names of what memory is told for: each device under a strategy, or the only one."""


@dataclass(frozen=True)
class RunForecast:
    """What a run will train on and cost, as far as that is known before it begins.

    Attributes:
        mixer: name of its class.
        moves: whether the mixer changes what is drawn while training runs.
        architecture: transformers' model type, or the pretrained model.
        parameters: of the model.
        steps: optimiser steps.
        device_sequences: sequences of a micro-batch on one device.
        micro_batches: of a step, on each device.
        context: tokens of a sequence.
        flops: of training.
        memory: of a device, by strategy; of the only one under "device".
        checkpoint_bytes: size of a checkpoint.
        checkpoints: how many stay on disk.
        domains: in the order of the weights; None where the corpus is not prepared.
        notes: what is not known, and why.
        seconds: of training, from a measured probe; None without one.
    """

    mixer: str
    moves: bool
    architecture: str
    parameters: int
    steps: int
    device_sequences: int
    micro_batches: int
    context: int
    devices: Devices
    precision: str
    flops: float
    memory: Mapping[str, DeviceMemory]
    checkpoint_bytes: int
    checkpoints: int
    domains: tuple[DomainForecast, ...] | None
    notes: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimiser step on all devices."""
        return self.device_sequences * self.micro_batches * self.devices.count * self.context

    @property
    def tokens(self) -> int:
        """Tokens that the run trains on."""
        return self.steps * self.step_tokens

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        memory = {name: asdict(each) | {"total": each.total} for name, each in self.memory.items()}
        own = {"step_tokens": self.step_tokens, "tokens": self.tokens, "memory": memory}
        return {**asdict(replace(self, memory={})), **own}


def forecast_run(recipe: Recipe, store: Store | None) -> RunForecast:
    """Forecast a run of a checked recipe; starts no process and allocates no model.

    Args:
        recipe: may have stand-ins for what an earlier stage leaves.
        store: its corpus, prepared. None: what follows from it is left out, with a note.

    Raises:
        UserError: for what a run would refuse before training.
    """
    trainer = {"trainer": recipe.arguments("trainer")}
    devices: Devices = build(recipe.composition, "trainer", Devices.of, trainer)
    source = weights_from(recipe)
    # Weights that are not known yet cannot be drawn by; what the domains hold can be read.
    opened = recipe if source is None else replace(recipe, mixer=Stratified())
    data = build_data(opened)
    micro_batches = int(recipe.arguments("trainer")["accumulate_grad_batches"])
    if store is not None:
        data.store = store
        data.begin(devices.count, recipe.steps, micro_batches)
    else:
        with mixer_errors(recipe.mixer):
            sizes = {"batch_size": data.batch_size * devices.count}
            build(recipe.composition, "mixer.init_args", recipe.mixer.check, sizes)
    model = meta_model(recipe, store, data.context)
    step_sequences = data.batch_size * devices.count * micro_batches
    known = source is None
    domains = None if store is None else forecast_domains(data, recipe.steps, step_sequences, known)
    setting = signal_setting(recipe, model, data, devices.count, step_sequences)
    flops = flops_with_signals(model.network, setting, data.context, recipe.steps)
    precision = Precision.parse(recipe.arguments("trainer")["precision"])
    return RunForecast(
        mixer=type(recipe.mixer).__name__,
        moves=recipe.mixer.learns and recipe.mixer.acts(SAMPLING),
        architecture=recipe.arguments("model")["pretrained"] or model.network.config.model_type,
        parameters=parameter_count(model.network),
        steps=recipe.steps,
        device_sequences=data.batch_size,
        micro_batches=micro_batches,
        context=data.context,
        devices=devices,
        precision=str(recipe.arguments("trainer")["precision"] or "32-true"),
        flops=flops * step_sequences * data.context * recipe.steps,
        memory=memory_by_strategy(model, setting, data, devices, precision),
        checkpoint_bytes=checkpoint_bytes(model.network, precision),
        checkpoints=recipe.report.checkpoints_kept + 1,  # the final one stays beside them
        domains=domains,
        notes=tuple(_notes(recipe, data, source, devices)),
    )


def meta_model(recipe: Recipe, store: Store | None, context: int) -> LanguageModel:
    """The recipe's model on the meta device, without memory."""
    with torch.device("meta"):
        pretrained = recipe.arguments("model")["pretrained"]
        if store is not None and pretrained is None:
            return build_model(recipe, store, context)
        words = expected_vocabulary(recipe.corpus) if store is None else store.vocab_size
        arguments = model_arguments(recipe, words, 0, context)
        if pretrained is not None:  # its sizes, without its weights
            own = network_settings(arguments["architecture"], arguments["config"], pretrained)
            sizes = {"architecture": own.model_type, "config": plain_config(own)}
            arguments |= {**sizes, "pretrained": None}
        return LanguageModel(**arguments)


def signal_setting(
    recipe: Recipe, model: LanguageModel, data: DataMixer, devices: int, step_sequences: int
) -> SignalSetting:
    """What the FLOPs of the mixer's signals follow from; a reference is taken to be as large."""
    mixer = recipe.mixer
    sketcher = SequenceSketcher(model.network, recipe.sketch) if mixer.request(Sketch) else None
    reference = model.network if mixer.request(ExcessLoss) else None
    measured = measured_sequences(mixer, data)
    return SignalSetting(
        mixer, sketcher, reference, data.batch_size, step_sequences, devices, measured
    )


def memory_by_strategy(
    model: LanguageModel,
    setting: SignalSetting,
    data: DataMixer,
    devices: Devices,
    precision: Precision,
) -> dict[str, DeviceMemory]:
    """The memory of the only device, or of one among many under DDP and under FSDP."""
    exact = len(data.domains) if setting.mixer.request(DomainGradients) else 0
    signals = signal_bytes(model.network, setting.reference, exact)
    sequences = setting.device_sequences, data.context
    kinds = {ONE: False} if devices.count == 1 else {DDP: False, FSDP: True}
    return {
        name: device_memory(model.network, *sequences, precision, devices.count, sharded, signals)
        for name, sharded in kinds.items()
    }


def _notes(recipe: Recipe, data: DataMixer, source: str | None, devices: Devices) -> list[str]:
    notes = []
    if source is not None:
        notes.append(f"stage {source} is to find the weights")
    if data.store is None and recipe.mixer.request(Probe):
        notes.append("FLOPs without the mixer's probes: how many domains it probes is not known")
    if devices.assumed:
        many = f"trainer.devices is not a number: counted as this machine's, {devices.a_node}"
        notes.append(f"{many} a node")
    if recipe.arguments("model")["optimizer"] is not None:
        notes.append("memory is that of AdamW, whatever model.optimizer is")
    fewest = min([data.validation_sequences, *map(len, data.validation_domains)])
    if recipe.arguments("trainer")["limit_val_batches"] != 0 and fewest < devices.count:
        few = f"{fewest} validation sequences of a domain for {devices.count:,} devices"
        notes.append(f"{few}, which need one each: raise data.validation_sequences")
    return notes
