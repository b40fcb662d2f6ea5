"""What a mixer is: signals in, domain weights out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dograph.errors import UserError, check_range, check_whole
from dograph.graph.polytope import Polytope
from dograph.mixers import state as own_state
from dograph.mixers.declared import (
    LOSS,
    SAMPLING,
    Acts,
    check_declared,
    framework_names_kept,
)
from dograph.mixers.problem_state import ProblemState
from dograph.mixers.run_limits import RunLimits
from dograph.mixers.simplex import (
    admissible,
    as_weights,
    on_simplex,
    part_of_simplex,
    weights_by_name,
)
from dograph.mixers.snapshot import MixerSnapshot
from dograph.mixers.target import Target, TargetValue, check_names
from dograph.mixers.user_code import mixer_errors
from dograph.signals.batch_signals import (
    BatchSignals,
    DomainText,
    HeldOutLoss,
    Probe,
    Request,
    ValidationLoss,
)
from dograph.signals.domain_sums import DomainLosses

logger = logging.getLogger(__name__)

_SETTINGS = {"acts_on", "acts_from", "needs", "update_every", "warmup", "prior", "floor"}
_CORPUS = {
    *("domains", "domain_tokens", "batch_size", "vocab_size", "target", "trained", "text"),
    *("token_budget", "delay", "limits", "prices"),
}
_SAVED_BY_BASE = {"history", "updates", "_domain_losses", "validation_loss", "_start", "_warned"}
NOT_OWN = frozenset(vars(nn.Module()).keys() | _SETTINGS | _CORPUS | _SAVED_BY_BASE)
"""Attributes that are no state of a mixer's own."""
ROUNDING = 1e-6
"""By how much weights that are computed at set-up may differ between processors."""
Kind = TypeVar("Kind", bound=Request)


class BaseMixer(nn.Module):
    """Decides what to draw next and how the drawn batch counts.

    A subclass overrides ``update`` (what to draw next, after a step), ``loss_weights`` (how the
    batch at hand counts, before its backward), or both. Weights count *tokens*, since every
    sequence is a full context window. Tensors, numbers and texts that a subclass keeps in
    attributes, also in lists, mappings and deques, are saved in checkpoints and restored to the
    bit; so is an attribute with ``state_dict`` and ``load_state_dict``.

    Args:
        update_every: optimiser steps between two calls of ``update``, ≥ 1.
        warmup: optimiser steps during which nothing is updated or re-weighted, ≥ 0.
        prior: weights by domain name to start from; normalised. None: uniform.
        floor: in [0, 1): every domain that is trained on keeps at least ``floor / S`` of S.

    Attributes:
        acts_on: where the mixer acts, ``{SAMPLING, LOSS}`` or less. None on a class: the methods
            that it overrides say it. A proxy's updates do not act on sampling: it keeps drawing by
            ``prior``, and its average weights are what the next stage draws by.
        needs: requests for signals beyond each sequence's loss and domain.
        acts_from: optimiser steps before the first that an update may change.
        whole_batch: whether loss weights must sum to 1. A mixer whose published loss leaves a
            part of the batch out says False; its sums may then be anything in [0, 1].
        needs_own_draws: whether it takes all that is drawn for drawn by its own weights, so that
            what it learns from other draws is wrong.
        not_saved: names of attributes that change and need not survive a resume.
        target: what the run is judged by, from ``setup`` on.
        token_budget: tokens that the run reads, all in all; 0 where its length is not known.
        delay: optimiser steps after an update that are still drawn by the weights before it.
        limits: what is drawn must keep to, from ``setup`` on; None for no limits.
        prices: by limit, how strongly it holds back what the mixer would draw; at the last update.
        trained: (S,) bool, False for unseen domains, whose weights are 0.
        text: of each domain (n_s, T + 1) tokens, on ``DomainText``; only while ``setup`` runs.
        validation_loss: (S,) float64, each domain's mean token loss in nats at the last validation;
            NaN for one that is not validated, None before the first. Request ``ValidationLoss``, so
            that a run without validations is refused.
        weights: (S,) float64 buffer on the simplex, the domain weights.
        sampling_weights: (S,) float64 buffer on the simplex, what is drawn.
        average_weights: (S,) float64 buffer, mean of the weights over the updates: the result.
        history: (step, weights) at set-up and after every update.
    """

    acts_on: frozenset[Acts] | set[Acts] | None = None
    needs: frozenset[Request] | set[Request] = frozenset()
    acts_from: int = 0
    whole_batch: bool = True
    needs_own_draws: bool = False
    not_saved: frozenset[str] | set[str] = frozenset()
    weights: Tensor
    sampling_weights: Tensor
    average_weights: Tensor
    _start: dict[str, Any]

    def __init__(
        self,
        update_every: int = 1,
        warmup: int = 0,
        prior: Mapping[str, float] | None = None,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("mixer.init_args.update_every", update_every, at_least=1)
        check_whole("mixer.init_args.warmup", warmup, at_least=0)
        check_range("mixer.init_args.floor", floor, at_least=0, below=1)
        if self.acts_on is None:
            own = {SAMPLING: self._overrides("update"), LOSS: self._overrides("loss_weights")}
            self.acts_on = {where for where, acts in own.items() if acts}
        self.update_every, self.warmup, self.floor = update_every, warmup, floor
        self.prior = dict(prior) if prior else None
        self.domains: tuple[str, ...] = ()
        self.domain_tokens: tuple[int, ...] = ()
        self.batch_size = self.vocab_size = self.token_budget = self.delay = 0
        self.target, self.trained = Target(), torch.zeros(0, dtype=torch.bool)
        self.text: tuple[Tensor, ...] = ()
        self.limits: RunLimits | None = None
        self.prices: dict[str, float] = {}
        self.validation_loss: Tensor | None = None
        self.history: list[tuple[int, Tensor]] = []
        self.updates = 0

    # What subclasses override.

    def initial_weights(self) -> Tensor:
        """(S,) weights to start from; called once the domains are known."""
        if self.prior is None:
            return self.default_prior()
        named = self.prior, self.domains, "prior", self.unseen, self.domain_tokens
        return weights_by_name(*named)

    def default_prior(self) -> Tensor:
        """(S,) what stands for a ``prior`` that is not given. Default: uniform."""
        return weights_by_name(None, self.domains, "prior")

    def reset(self) -> None:
        """Sets the mixer's own state to its start; domains and weights are known by then."""

    def update(self, signals: BatchSignals) -> Tensor:
        """(S,) what to draw from now on, on the simplex. Default: as before."""
        return self.weights

    def loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) how this batch's losses count, sum 1. Default: 1/B each.

        With ``signals.micro_batches`` above 1 the sums may differ between micro-batches, as long as
        their mean is 1.
        """
        return signals.even_weights()

    def check(self, batch_size: int) -> None:
        """Raises UserError where the settings do not fit a global batch of ``batch_size``."""

    def diagnostics(self) -> dict[str, float]:
        """Scalars of the last step that TensorBoard shows under ``mixer/``."""
        return {}

    def snapshot(self) -> MixerSnapshot:
        """What figures draw of the mixer. Default: nothing."""
        return MixerSnapshot()

    @classmethod
    def reads_validations(cls, target: Target) -> bool:
        """Whether runs for a target draw by their validations' losses."""
        return any(isinstance(request, ValidationLoss) for request in cls.needs)

    # What the framework calls.

    def setup(
        self,
        domains: Sequence[str],
        domain_tokens: Sequence[int],
        batch_size: int,
        vocab_size: int = 0,
        target: TargetValue = None,
        unseen: Sequence[str] = (),
        text: Sequence[Tensor] = (),
        token_budget: int = 0,
        delay: int = 0,
        limits: RunLimits | None = None,
    ) -> None:
        """Tells the mixer its domains, once, before training; UserError if they do not fit.

        Args:
            domains: the S domain names, in the order of ``weights``.
            domain_tokens: training tokens of each.
            batch_size: sequences of a global batch.
            vocab_size: of the tokens; 0 where no mixer asks for it.
            target: what the run is judged by, as in a recipe (``Target``).
            unseen: domains that are never trained on.
            text: (n_s, T + 1) tokens of each domain, where the mixer requests ``DomainText``.
            token_budget: tokens that the run reads, all in all; 0 where its length is not known.
            delay: optimiser steps after an update that are still drawn by the weights before it.
            limits: what is drawn must keep to.
        """
        check_declared(self)
        if not len(set(domains)) == len(domains) == len(domain_tokens):
            raise UserError(
                f"domains are {list(domains)} and domain_tokens {list(domain_tokens)}: give each "
                "domain another name, and one number of tokens"
            )
        if self.request(DomainText) and len(text) != len(domains):
            raise UserError(
                f"{self._name} reads text before training: give setup `text`, (n, T + 1) tokens of "
                "each domain"
            )
        self.text = tuple(text)
        if "_start" in vars(self):  # set up before, for another run
            own_state.restore_state(self, {}, self._start, NOT_OWN)
        self.domains, self.domain_tokens = tuple(domains), tuple(domain_tokens)
        self.batch_size, self.vocab_size = batch_size, vocab_size
        self.token_budget, self.delay = token_budget, delay
        self.limits, self.prices = limits, {}
        self.target = Target.parse(target, unseen)
        self.target.check(self.domains)
        self.target = self.target.by_domain(self.domains)
        check_names("data.unseen", self.unseen, self.domains)
        if (probe := self.request(Probe)) is not None:
            check_names(f"{self._name}'s Probe", probe.domains or (), self.domains)
        self.trained = torch.tensor([name not in self.unseen for name in self.domains])
        if not self.trained.any():
            raise UserError("data.unseen names every domain: leave one to train on")
        with mixer_errors(self):
            self.check(batch_size)
        weights = self._first_weights()
        for name in ("weights", "sampling_weights", "average_weights"):
            self.register_buffer(name, weights.clone())
        self.history = [(0, weights.clone())]
        self.updates = 0
        self._domain_losses = DomainLosses(len(self.domains))
        self.validation_loss = None
        self._warned: set[str] = set()
        with mixer_errors(self), framework_names_kept(self, "reset"):
            self.reset()
        self.text = ()
        self._start = own_state.start_of(self._own())

    def request(self, kind: type[Kind]) -> Kind | None:
        """The mixer's request of a kind; None if it needs no such signal."""
        return next((request for request in self.needs if isinstance(request, kind)), None)

    def needs_at(self, step: int, kind: type[Request]) -> bool:
        """Whether a signal is needed at a step, after ``step`` are done."""
        request = self.request(kind)
        if isinstance(request, Probe | HeldOutLoss):
            return (step + 1) % self.update_every == 0
        return request is not None

    def probes(self, domain: str) -> bool:
        """Whether a domain is probed: one that the request names, else one of the target."""
        request = self.request(Probe)
        if request is None:
            return False
        named = request.domains
        return domain in (self.target.names(self.domains) if named is None else named)

    def acts(self, where: Acts) -> bool:
        """Whether the mixer acts on sampling, or on the loss."""
        return self.acts_on is not None and where in self.acts_on

    @property
    def unseen(self) -> tuple[str, ...]:
        """Names of the domains that are never trained on."""
        return self.target.unseen

    @property
    def learns(self) -> bool:
        """Whether any signal of training changes the weights, or how losses count."""
        return self._overrides("update") or self.acts(LOSS)

    @property
    def is_proxy(self) -> bool:
        """Whether the weights are found for a later stage, while sampling stays as it is."""
        return self._overrides("update") and not self.acts(SAMPLING)

    def validated(self, losses: Mapping[str, float]) -> None:
        """Keeps a validation's mean token losses by domain for the coming updates."""
        known = [losses.get(name, math.nan) for name in self.domains]
        self.validation_loss = torch.tensor(known, dtype=torch.float64)

    def validated_since(self, used: Tensor | None) -> bool:
        """Whether there is a validation with other losses than the (S,) ``used``; None: any."""
        now = self.validation_loss
        if now is None or used is None:
            return now is not None
        return not torch.equal(now.nan_to_num(-1), used.nan_to_num(-1))  # NaN equals no NaN

    def step(self, signals: BatchSignals) -> bool:
        """Updates ``weights`` from a finished batch where one is due; says whether it did."""
        done = signals.step + 1
        if not self._overrides("update"):
            return False
        self._domain_losses.add(signals.domain, signals.sequence_loss)
        if done <= self.warmup or done % self.update_every:
            return False
        signals.domain_loss = self._domain_losses.take()
        name = f"{self._name}.update's result at step {done}"
        drawn_by, self.prices = self.sampling_weights.clone(), {}
        with mixer_errors(self, f"at step {done}"), framework_names_kept(self, "update"):
            proposed = self.update(signals.copy())
        if not torch.equal(self.sampling_weights, drawn_by):
            raise UserError(
                f"{self._name}.update sets self.sampling_weights at step {done}, by which nothing "
                "is drawn: return the weights to draw by"
            )
        weights = self._admissible(as_weights(proposed, len(self.domains), name, "domain"), name)
        if self.acts(SAMPLING):
            weights = self._limited(weights, signals.drawn_before)
        self.weights.copy_(weights)
        if self.acts(SAMPLING):
            self.sampling_weights.copy_(weights)
        self.updates += 1
        self.average_weights += (weights - self.average_weights) / self.updates
        self.history.append((done, weights.clone()))
        return True

    def checked_loss_weights(self, signals: BatchSignals) -> Tensor:
        """(B,) float32 weights of the batch's losses; 1/B where the mixer does not act on them."""
        if not self.acts(LOSS) or signals.step < self.warmup:
            return signals.even_weights()
        name = f"{self._name}.loss_weights' result at step {signals.step + 1}"
        moment = f"at step {signals.step + 1}"
        with mixer_errors(self, moment), framework_names_kept(self, "loss_weights"):
            proposed = self.loss_weights(signals.copy())
        weights = as_weights(proposed, signals.batch_size, name, "sequence of the batch")
        if self.whole_batch and signals.micro_batches == 1:
            return on_simplex(weights, name).float()
        return part_of_simplex(weights, name, signals.micro_batches)

    def get_extra_state(self) -> dict[str, Any]:
        """History, counters and the mixer's own state, in plain tensors and numbers."""
        for name in set(self.lost_state()) - self._warned:
            logger.warning("%s.%s cannot be saved: a resume would lose it", self._name, name)
            self._warned.add(name)
        steps, weights = zip(*self.history, strict=True)
        return {
            "updates": self.updates,
            "history_steps": torch.tensor(steps),
            "history_weights": torch.stack(weights),
            "domain_losses": self._domain_losses.state_dict(),
            "validation_loss": self.validation_loss,
            "prices": self.prices,
            "own": own_state.changed_state(self._own(), self._start, self._buffers),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what ``get_extra_state`` gave."""
        self.updates = int(state["updates"])
        pairs = zip(state["history_steps"].tolist(), state["history_weights"], strict=True)
        history = [(int(step), weights) for step, weights in pairs]
        if not torch.allclose(history[0][1], self.history[0][1], rtol=0, atol=ROUNDING):
            # The restored weights come from the old start, so that the new one would not count.
            raise UserError(
                f"the checkpoint's {self._name} began with the weights {_rounded(history[0][1])}, "
                f"this one begins with {_rounded(self.history[0][1])}: give mixer.init_args, or "
                "what else they follow from (trainer.max_steps for UniMax), the values that the "
                "run began with, or start a new run"
            )
        self.history = history
        self._domain_losses.load_state_dict(state["domain_losses"])
        self.validation_loss = state["validation_loss"]
        self.prices = dict(state.get("prices", {}))
        own_state.restore_state(self, state["own"], self._start, NOT_OWN)

    def lost_state(self) -> list[str]:
        """Names of attributes that have changed since ``reset`` and cannot be saved.

        Also of mixers within this one, and of a problem that it solves, with dots.
        """
        lost = own_state.lost_attributes(self._own(), self._start)
        for name, part in [*vars(self).items(), *self._modules.items()]:
            if isinstance(part, BaseMixer) and "_start" in vars(part):
                lost += [f"{name}.{inner}" for inner in part.lost_state()]
            elif isinstance(part, ProblemState):
                lost += [f"{name}.problem.{inner}" for inner in part.lost()]
        return lost

    def _own(self) -> dict[str, Any]:
        names = vars(self).keys() - NOT_OWN - set(self.not_saved)
        own = {name: vars(self)[name] for name in names}
        own |= {name: self._buffers[name] for name in self._non_persistent_buffers_set}
        return dict(sorted(own.items()))

    def _overrides(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(BaseMixer, method)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _first_weights(self) -> Tensor:
        """(S,) ``initial_weights``, checked."""
        with mixer_errors(self):
            start = self.initial_weights()
        name = f"{self._name}.initial_weights' result"
        weights = on_simplex(as_weights(start, len(self.domains), name, "domain"), name)
        if self.floor and not weights[self.trained].all():
            index = int((self.trained & (weights == 0)).nonzero()[0])
            raise UserError(
                f"mixer.init_args.prior.{self.domains[index]} is 0, but floor is {self.floor} and "
                "would draw it: give it a weight, name it in data.unseen, or set floor to 0"
            )
        return self._limited(admissible(weights, self.trained, self.floor, name), None)

    def _admissible(self, weights: Tensor, name: str) -> Tensor:
        return admissible(on_simplex(weights, name), self.trained, self.floor, name)

    def _limited(self, weights: Tensor, done: Tensor | None) -> Tensor:
        """(S,) the mixture within the limits that is nearest to ``weights`` (S,).

        ``done`` (S,) sequences are drawn before; None: none.
        """
        if self.limits is None:
            return weights
        within = self.limits.polytope(done)
        nearest = self._nearest(weights, within, done)
        if nearest is not weights or not self.prices:
            self.prices = self.limits.prices(weights, nearest, within)
        return nearest

    def _nearest(self, weights: Tensor, within: Polytope, done: Tensor | None) -> Tensor:
        """(S,) the mixture of the polytope after (S,) sequences ``done`` nearest to ``weights``."""
        assert self.limits is not None
        try:
            return self.limits.nearest(weights, within)
        except ArithmeticError as error:
            if done is None:
                raise UserError(f"limits: {error}: change one of them") from error
            # By rounding, where little is left to draw: the mixture before kept to the limits.
            if "limits" not in self._warned:
                logger.warning("%s, to the sequence: the mixture stays as it is", error)
                self._warned.add("limits")
            return self.sampling_weights.clone()


def _rounded(weights: Tensor) -> list[float]:
    """Weights as a message shows them."""
    return [round(weight, 6) for weight in weights.tolist()]
