"""The DataMixer: prepared domains, one sampler, one mixer."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from dograph.data.batch import Batch
from dograph.data.batch_counter import BatchCounter
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store
from dograph.data.domains import DomainSequences, MixtureDataset, as_read, evenly
from dograph.data.loaders import PatientLoader
from dograph.data.sampler import Draw, MixtureSampler, Pick, delay_steps, systematic_counts
from dograph.errors import UserError, check_choice, check_whole
from dograph.mixers.base import BaseMixer
from dograph.mixers.fixed import Stratified
from dograph.mixers.limits import Limits
from dograph.mixers.run_limits import RunLimits
from dograph.mixers.simplex import on_simplex
from dograph.mixers.target import Target, TargetValue, check_names
from dograph.signals.batch_signals import DomainText, Probe

logger = logging.getLogger(__name__)
MOST_HELD_OUT = 4096
"""Sequences of an unseen domain that probes choose from."""
MOST_TEXT_CHUNKS = 32
"""Chunks of a domain that ``DomainText`` is read from; each has up to 32 MiB of tokens."""
KEYS_OF = {
    "corpus fingerprint": "corpus",
    "global batch size": "data.batch_size over all devices",
    "held out": "mixer.init_args",
    "mixer": "mixer.class_path",
    "batches of a step": "trainer.accumulate_grad_batches, or MixingLoop's micro_batches",
}
"""Keys of a recipe behind what a checkpoint shares with its run, where the names are others."""


def evenly_spaced(
    domain: int, length: int, count: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[Pick]]:
    """Fixed validation batches of one domain: ``count`` evenly spaced of its sequences, in order.

    Sequences go to the ranks in turn, and ranks with fewer repeat their last, so that none waits
    for another; a UserError if a rank would get none.
    """
    indices = evenly(length, count)
    if len(indices) < world_size:
        raise UserError(
            f"domain {domain} has {len(indices)} validation sequences for {world_size} ranks: "
            "raise data.validation_sequences, lower data.context or use fewer devices"
        )
    picks = [(domain, int(index)) for index in indices[rank::world_size]]
    picks += picks[-1:] * (-(-len(indices) // world_size) - len(picks))
    return [picks[i : i + batch_size] for i in range(0, len(picks), batch_size)]


def batches_of(trainer: Trainer) -> int:
    """Batches that a trainer's whole run reads on each process; 0 if it has no length."""
    limits = [trainer.max_steps * int(trainer.accumulate_grad_batches)]
    if trainer.max_epochs is not None and isinstance(trainer.limit_train_batches, int):
        limits.append(trainer.max_epochs * trainer.limit_train_batches)
    return min((limit for limit in limits if limit > 0), default=0)


class PlannedRun(NamedTuple):
    """What set-up reads of a trainer, where there is none: by default a run of unknown length."""

    world_size: int = 1
    batches: int = 0
    micro_batches: int = 1
    rank: int = 0
    first: Callable[[Tensor], Tensor] | None = None


class DataMixer(LightningDataModule):
    """Serves a prepared corpus by live domain weights; one validation loader per domain.

    Use it with ``dograph.MixingCallback`` and ``use_distributed_sampler=False`` in any Lightning
    script. Its checkpoint state holds sampler and mixer.

    Args:
        mixer: decides the weights. None: Stratified.
        corpus: where the text is and how it becomes tokens.
        context: tokens that the model sees at once, T ≥ 1.
        batch_size: sequences in a batch on each process, ≥ 1.
        draw: "stratified" or "multinomial".
        workers: loader processes per rank; 0 reads in the main process. The batches are the same.
        lookahead: batches between new weights and the first batch drawn by them; at least
            ``workers``, so that prefetched batches never miss new weights.
        validation_sequences: evenly spaced sequences used of each domain's validation split.
        unseen: domains that are validated, and may be probed, and are never trained on.
        cap: maximum training tokens by domain, at least one sequence: the first whole sequences in
            the store's order that fit. So much of a domain repeats.
        seed: seed of the draws. None: the recipe's seed.
        target: which losses the run is to lower, as in a recipe (``Target``).
        limits: what the drawn mixture must keep to, as in a recipe. None: nothing.
    """

    def __init__(
        self,
        mixer: BaseMixer | None = None,
        corpus: CorpusSettings | None = None,
        context: int = 128,
        batch_size: int = 32,
        draw: Draw = "stratified",
        workers: int = 0,
        lookahead: int = 4,
        validation_sequences: int = 96,
        unseen: Sequence[str] = (),
        cap: Mapping[str, int] | None = None,
        seed: int | None = None,
        target: TargetValue = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__()
        check_choice("data.draw", draw, get_args(Draw))
        check_whole("data.context", context, at_least=1)
        check_whole("data.batch_size", batch_size, at_least=1)
        check_whole("data.validation_sequences", validation_sequences, at_least=1)
        check_whole("data.workers", workers, at_least=0)
        check_whole("data.lookahead", lookahead, at_least=0)
        for name, tokens in (cap or {}).items():
            check_whole(f"data.cap.{name}", tokens, at_least=context + 1)
        if workers > lookahead:
            raise UserError(
                f"data.workers is {workers}, but data.lookahead is {lookahead}: raise "
                "data.lookahead to at least data.workers, or prefetched batches miss new weights"
            )
        if workers > max(64, 8 * (os.cpu_count() or 1)):
            raise UserError(f"data.workers is {workers}: lower it for {os.cpu_count()} cores")
        self.mixer = mixer if mixer is not None else Stratified()
        self.corpus = corpus if corpus is not None else CorpusSettings()
        self.context, self.batch_size, self.draw = context, batch_size, draw
        self.workers, self.lookahead = workers, lookahead
        self.validation_sequences = validation_sequences
        self.unseen, self.cap = tuple(sorted(set(unseen))), dict(cap or {})
        self.target = Target.parse(target, self.unseen)
        self.limits = limits if limits is not None else Limits()
        self.seed = 0 if seed is None else seed
        check_whole("data.seed", self.seed, at_least=0)
        self.attended = False  # whether a MixingCallback carries signals to the mixer
        self._planned = PlannedRun()
        self.store: Store | None = None  # may be set by a caller that has opened it
        self.train_domains: list[DomainSequences] = []
        self.validation_domains: list[DomainSequences] = []

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of the weights."""
        return tuple(domain.domain for domain in self.train_domains)

    @property
    def _ranks(self) -> tuple[int, int]:
        """(rank, world size) of the attached trainer or the begun run; else (0, 1)."""
        if self.trainer is None:
            return self._planned.rank, self._planned.world_size
        return self.trainer.global_rank, self.trainer.world_size

    def prepare_data(self) -> None:
        """Prepare the corpus unless that is done; runs on one process."""
        self.store = self.store or prepare(self.corpus)

    def setup(self, stage: str | None = None) -> None:
        """Open the domains, set up mixer and sampler; a UserError if they do not fit together.

        A Trainer at step 0 begins a run: mixer and sampler that have been in one start anew.
        """
        if stage == "fit":
            self.attended = False
            if self.trainer is not None:
                BatchCounter(self._count_batch).attach(self.trainer)
        begins = stage == "fit" and self.trainer is not None and self.trainer.global_step == 0
        if not hasattr(self, "sampler"):
            self._open_domains()
        elif begins and self.sampler.drawn:
            logger.warning(
                "this DataMixer was trained on before: its mixer and draws start anew, or from the "
                "checkpoint that the fit resumes"
            )
        elif not begins or self._run == self._run_set_up:
            return
        self._begin()

    def begin(
        self,
        world_size: int,
        steps: int,
        micro_batches: int = 1,
        rank: int = 0,
        first: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Begin a run without a trainer: a plan of it, or a loop of one's own.

        Args:
            world_size: number of processes.
            steps: optimiser steps of the run.
            micro_batches: batches of a step on each process.
            rank: of this process.
            first: from a tensor to rank zero's; None if there is one rank, or it is a plan.
        """
        batches = steps * micro_batches
        self._planned = PlannedRun(world_size, batches, micro_batches, rank, first)
        self._open_domains()
        self._begin()

    def _count_batch(self) -> None:
        """Counts a batch as trained on, unless a MixingCallback does."""
        if not self.attended:
            self.sampler.mark_trained()

    def _open_domains(self) -> None:
        store = self.store = self.store or prepare(self.corpus, progress=False)
        names = [entry.name for entry in store.domains]
        check_names("data.cap", list(self.cap), names)
        self.target = Target.parse(self.target.value, self.unseen)  # which may have been set since
        train = [
            DomainSequences(store, name, "train", self.context, self.cap.get(name))
            for name in names
        ]
        self.validation_domains = [
            DomainSequences(store, name, "validation", self.context)
            for name in (names if store.validates else ())
        ]
        self.train_domains = train

    def _begin(self) -> None:
        """Set up the mixer, and a sampler that draws by its first weights."""
        assert self.store is not None
        batch_size = self.batch_size * self._ranks[1]
        tokens = [
            min(entry.train_tokens, self.cap.get(entry.name, entry.train_tokens))
            for entry in self.store.domains
        ]
        self._reserved: list[list[int]] = [[] for _ in self.train_domains]
        self._set_up_mixer(tokens, batch_size)
        self._reserved = [self._held_out(domain) for domain in self.train_domains]
        if self.limits.epochs is not None and any(self._reserved):
            self._set_up_mixer(tokens, batch_size)  # epochs are of what probes leave to draw
        self._share_start()
        self._set_up, self._run_set_up = self._settings(), self._run
        self.sampler = MixtureSampler(
            [domain.chunk_lengths.tolist() for domain in self.train_domains],
            self.mixer.sampling_weights.numpy(),
            batch_size,
            self.seed,
            self.draw,
            self.lookahead,
            *self._ranks,
            self._reserved,
        )

    def _set_up_mixer(self, tokens: Sequence[int], batch_size: int) -> None:
        assert self.store is not None
        self.mixer.setup(
            self.domains,
            tokens,
            batch_size,
            self.store.vocab_size,
            self.target.value,
            self.unseen,
            self._text(self.train_domains),
            self._token_budget,
            self._delay,
            self._run_limits(),
        )

    @property
    def _run(self) -> tuple[int, int, int]:
        """What set-up reads of the attached trainer."""
        return self._token_budget, self._ranks[1], self._delay

    @property
    def _token_budget(self) -> int:
        """Tokens that the attached trainer's run reads, T + 1 a sequence; 0 if it has no length."""
        batches = self._planned.batches if self.trainer is None else batches_of(self.trainer)
        return batches * self.batch_size * self._ranks[1] * (self.context + 1)

    @property
    def _delay(self) -> int:
        """Optimiser steps that new weights take to reach the draws."""
        return delay_steps(self.lookahead, self._step_batches)

    @property
    def _step_batches(self) -> int:
        """Batches of an optimiser step, on each rank."""
        trainer, planned = self.trainer, self._planned.micro_batches
        return planned if trainer is None else int(trainer.accumulate_grad_batches)

    def _run_limits(self) -> RunLimits | None:
        """What this run's mixture must keep to; UserError where no mixture can."""
        self.limits.check(self.domains, self.unseen)
        if not self.limits.is_set:
            return None
        drawn = [name not in self.unseen for name in self.domains]
        every = zip(self.train_domains, self._reserved, strict=True)
        sequences = [len(domain) - len(reserved) for domain, reserved in every]
        run_sequences = self._token_budget // (self.context + 1)
        return self.limits.of_run(self.domains, drawn, sequences, run_sequences)

    def _settings(self) -> dict[str, Any]:
        """What set-up reads once; copies of what can be changed in place."""
        names = ("mixer", "context", "batch_size", "draw", "lookahead", "seed", "unseen", "target")
        kept = {name: getattr(self, name) for name in (*names, "limits")}
        return {**kept, "cap": dict(self.cap), "corpus": copy.deepcopy(self.corpus)}

    def _check_set_up(self) -> None:
        if not hasattr(self, "sampler"):
            raise UserError("a DataMixer has no domains before its setup(): call it first")

    def _check_unchanged(self) -> None:
        """Raises UserError for a setting that was changed too late to have an effect."""
        self._check_set_up()
        for name, value in self._settings().items():
            if value != (was := self._set_up[name]):
                raise UserError(
                    f"DataMixer.{name} was {was!r} at set-up and has been changed to {value!r}, "
                    "without effect on the draws: make a new DataMixer"
                )

    def _share_start(self) -> None:
        """Let every rank begin with rank zero's weights: another processor may round otherwise."""
        first, mixer = self._planned.first, self.mixer
        if self.trainer is not None and self.trainer.world_size > 1:
            first = self.trainer.strategy.broadcast
        if first is not None:
            for weights in (mixer.weights, mixer.sampling_weights, mixer.average_weights):
                weights.copy_(first(weights))

    def _text(self, train: Sequence[DomainSequences]) -> list[Tensor]:
        """(n_s, T + 1) training tokens of each domain, evenly spread; none if not requested."""
        request = self.mixer.request(DomainText)
        if request is None:
            return []
        most, text = max(request.tokens // (self.context + 1), 1), []
        for domain in train:
            chosen = domain.spread(most, MOST_TEXT_CHUNKS)
            text.append(torch.from_numpy(domain.tokens(chosen)))
        return text

    def _held_out(self, domain: DomainSequences) -> list[int]:
        """Indices of sequences, evenly spaced over a domain, that are reserved for probes."""
        probe = self.mixer.request(Probe)
        if probe is None or not self.mixer.probes(domain.domain):
            return []
        if not 1 <= probe.per_update <= probe.held_out:
            raise UserError(
                f"{type(self.mixer).__name__} probes {probe.per_update} of {probe.held_out} "
                "held-out sequences: set per_update ≥ 1 and held_out ≥ per_update"
            )
        count = len(domain)
        if domain.domain in self.unseen:  # one is left, since a sampler has an order of each domain
            held_out = min(count - 1, MOST_HELD_OUT)
            enough = held_out >= probe.per_update
        elif probe.by_target:
            held_out = max(min(probe.held_out, count // 10), probe.per_update)
            enough = count >= 2 * held_out
        else:
            held_out, enough = probe.held_out, count >= 2 * probe.held_out
        if not enough:
            raise UserError(
                f"domain {domain.domain!r} has {count} sequences, too few to hold out "
                f"{max(held_out, probe.per_update)} of them: lower mixer.init_args.probe or "
                "data.context, or raise its data.cap"
            )
        return evenly(count, held_out).tolist()

    def probe_batch(self, step: int) -> Batch | None:
        """Held-out sequences of the probed domains, chosen by seed and step alone; None without."""
        probe, picks = self.mixer.request(Probe), []
        assert probe is not None
        probed = np.array([len(reserved) > 0 for reserved in self._reserved])
        counts = probed * probe.per_update
        if probe.by_target and probed.any():
            shares = self.target.weights(self.domains).numpy() * probed
            shares = shares if shares.any() else probed.astype(float)
            start = float(np.random.default_rng([self.seed, step]).random())
            counts = systematic_counts(shares, probe.per_update, start)
        for index in counts.nonzero()[0].tolist():
            draw = np.random.default_rng([self.seed, step, index])
            chosen = draw.choice(self._reserved[index], counts[index], replace=False)
            picks += [(index, int(place)) for place in chosen]
        return MixtureDataset(self.train_domains).__getitems__(picks) if picks else None

    def source_batch(self, step: int) -> Batch:
        """As many training sequences of each domain as a probe has, chosen by seed and step alone.

        They are of the domains that are trained on, and are not held out.
        """
        probe, picks = self.mixer.request(Probe), []
        assert probe is not None
        for index in self.mixer.trained.nonzero().flatten().tolist():
            count, reserved = len(self.train_domains[index]), self._reserved[index]
            trained_on = np.delete(np.arange(count), reserved)
            draw = np.random.default_rng([self.seed, step, index, 1])
            chosen = draw.choice(trained_on, min(probe.per_update, len(trained_on)), replace=False)
            picks += [(index, int(place)) for place in chosen]
        return MixtureDataset(self.train_domains).__getitems__(picks)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches without end, drawn by the current weights.

        Iterated by hand, a batch counts once ``sampler.mark_trained`` is called after it; a new
        iterator begins with the batches that do not count yet.
        A UserError in a fit without a MixingCallback, where the mixer's weights would never change.
        """
        self._check_unchanged()
        fits = self.trainer is not None and self.trainer.state.fn == "fit"
        if fits and self.mixer.learns and not self.attended:
            raise UserError(
                f"{type(self.mixer).__name__} would change nothing without signals: add "
                "dograph.MixingCallback() to the trainer's callbacks"
            )
        return PatientLoader(
            MixtureDataset(self.train_domains),
            batch_sampler=self.sampler,
            collate_fn=as_read,
            num_workers=self.workers,
            prefetch_factor=self.lookahead // self.workers if self.workers else None,
            persistent_workers=self.workers > 0,
            pin_memory=self._on_gpu,
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One deterministic loader per domain, in the domains' order; none if none is held out."""
        self._check_set_up()
        dataset = MixtureDataset(self.validation_domains)
        return [
            DataLoader(dataset, batch_sampler=each, collate_fn=as_read, pin_memory=self._on_gpu)
            for each in self._validation_picks(self.validation_sequences)
        ]

    def validation_batches(self, sequences: int | None = None) -> Iterator[tuple[Batch, int]]:
        """This rank's validation batches of all domains, and how many sequences count in each.

        ``sequences`` of each domain are evenly spaced; None: those of ``val_dataloader``.
        """
        most = self.validation_sequences if sequences is None else sequences
        dataset = MixtureDataset(self.validation_domains)
        for index, batches in enumerate(self._validation_picks(most)):
            left = self.validated(index, most)
            for picks in batches:
                yield dataset.__getitems__(picks), min(left, len(picks))
                left -= min(left, len(picks))

    def _validation_picks(self, most: int) -> list[list[list[Pick]]]:
        """This rank's batches of ``most`` sequences of each domain, by domain."""
        return [
            evenly_spaced(index, len(domain), most, self.batch_size, *self._ranks)
            for index, domain in enumerate(self.validation_domains)
        ]

    def validated(self, domain: int, sequences: int | None = None) -> int:
        """Of a domain's ``sequences``, those that count on this rank; the rest repeat.

        None: those of its validation loader.
        """
        rank, ranks = self._ranks
        most = self.validation_sequences if sequences is None else sequences
        return len(range(rank, min(len(self.validation_domains[domain]), most), ranks))

    @property
    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _identity(self) -> dict[str, Any]:
        """Settings that a checkpoint must share with a run that resumes from it."""
        assert self.store is not None
        probe = self.mixer.request(Probe)
        return {
            "corpus fingerprint": self.store.fingerprint,
            "context": self.context,
            "global batch size": self.sampler.batch_size,
            "draw": self.draw,
            "lookahead": self.lookahead,
            "seed": self.seed,
            "held out": probe.held_out if probe else 0,
            "target": self.target.value,
            "unseen": list(self.unseen) or None,
            "cap": self.cap or None,
            "mixer": type(self.mixer).__name__,
            "batches of a step": self._step_batches,
        }

    def state_dict(self) -> dict[str, Any]:
        """State of sampler and mixer, and the settings they belong to."""
        return {
            "belongs_to": self._identity(),
            "sampler": self.sampler.state_dict(),
            "mixer": self.mixer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore sampler and mixer; a UserError if their data or mixer was another."""
        identity = self._identity()
        earlier = "batches of a step" not in state["belongs_to"]
        if earlier or (self.trainer is not None and self.trainer.state.fn != "fit"):
            del identity["batches of a step"]
        for key, value in identity.items():
            was = state["belongs_to"].get(key)
            if was != value:
                named = f" ({KEYS_OF[key]})" if key in KEYS_OF else ""
                raise UserError(
                    f"the checkpoint's {key}{named} is {was}, but this run's is {value}: resume "
                    "with the same recipe, or start a new run"
                )
        self.mixer.load_state_dict(state["mixer"])
        for name in ("weights", "sampling_weights"):
            on_simplex(getattr(self.mixer, name), f"{type(self.mixer).__name__}.{name}")
        self.sampler.load_state_dict(state["sampler"])
        if self.mixer.limits is not None:
            drawn = self.sampler.realised.astype(float)
            self.mixer.limits.check_resumed(self.mixer.sampling_weights, drawn)
