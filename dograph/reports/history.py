"""The mixture over time: weights, shares, losses, and the seconds that training took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dograph.errors import UserError
from dograph.files.atomic import read_json, write_json
from dograph.files.records import from_dict
from dograph.files.run_dir import HISTORY
from dograph.signals.batch_signals import BatchSignals

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Validation:
    """Mean token losses in nats by domain, and the steps, tokens and seconds trained by then."""

    step: int
    tokens: int
    seconds: float
    losses: dict[str, float]


def shares_since(totals: Floats, before: Sequence[float] | None) -> Floats:
    """(S,) shares of what was added between two totals; of everything if nothing was."""
    added = totals if before is None else totals - np.array(before)
    added = added if added.sum() > 0 else totals
    return added / max(float(added.sum()), 1e-30)


@dataclass
class MixtureHistory:
    """Points of the mixture's trajectory; realised and effective shares hold between points.

    Attributes:
        domains: S names, in the order of the weights.
        steps: t optimiser steps.
        weights: t times (S,) weights of the sampler; a proxy's domain weights, which it finds.
        realised: t times (S,) shares of the sequences trained on since the point before.
        effective: t times (S,) shares of the loss weight since the point before.
        validations: in the order of their steps.
        realised_total: (S,) sequences trained on until the last point.
        effective_total: (S,) sums of sequence weights until the last point.
    """

    domains: tuple[str, ...] = ()
    steps: list[int] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)
    realised: list[list[float]] = field(default_factory=list)
    effective: list[list[float]] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    realised_total: list[float] | None = None
    effective_total: list[float] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.steps), len(self.domains))
        for name in ("weights", "realised", "effective"):
            rows = getattr(self, name)
            if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
                raise ValueError(f"{name} has not a value for every domain at every step")
        for total in (self.realised_total, self.effective_total):
            if total is not None and len(total) != shape[1]:
                raise ValueError(f"a total has {len(total)} values for {shape[1]} domains")

    def add(
        self, step: int, weights: Floats, realised: npt.ArrayLike, effective: npt.ArrayLike
    ) -> None:
        """Adds a point of (S,) weights in force, and sequences and loss weight counted so far."""
        drawn, counted = np.array(realised, float), np.array(effective, float)
        self.steps.append(step)
        self.weights.append(np.array(weights, float).tolist())
        self.realised.append(shares_since(drawn, self.realised_total).tolist())
        self.effective.append(shares_since(counted, self.effective_total).tolist())
        self.realised_total, self.effective_total = drawn.tolist(), counted.tolist()

    def add_validation(self, validation: Validation) -> None:
        """Adds a validation; one at the same step replaces the one before."""
        if self.validations and self.validations[-1].step == validation.step:
            self.validations.pop()
        self.validations.append(validation)

    def outcome(self) -> dict[str, Any]:
        """All points in JSON's types, without what the clock measured."""
        points = self._points()
        for validation in points["validations"]:
            del validation["seconds"]
        return points

    def write(self, run_folder: Path) -> None:
        """Writes ``history.json``, whole or not at all."""
        write_json(run_folder / HISTORY, self._points())

    @classmethod
    def read(cls, run_folder: Path) -> MixtureHistory:
        """Reads what ``write`` wrote; a UserError says if it is missing or damaged."""
        path = run_folder / HISTORY
        try:
            return from_dict(cls, read_json(path))
        except (ValueError, OSError) as error:
            what = "is damaged" if path.is_file() else "is missing"
            raise UserError(f"{path} {what}: name the folder of a finished run") from error

    def _points(self) -> dict[str, Any]:
        return {key: each for key, each in self.state_dict().items() if not key.endswith("_total")}

    def state_dict(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {**asdict(self), "domains": list(self.domains)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues what ``state_dict`` gave."""
        vars(self).update(vars(from_dict(MixtureHistory, state)))


class LossMeans:
    """Means of the training loss since the last ``take``; adding waits for no device."""

    def __init__(self) -> None:
        self._sums = torch.zeros(2)
        self._batches = 0

    def add(self, signals: BatchSignals) -> None:
        """Adds a batch's mean loss and its weighted loss."""
        loss = signals.sequence_loss.float()
        weighted = loss.mean() if signals.loss_weights is None else signals.loss_weights @ loss
        self._sums = self._sums.to(loss.device) + torch.stack([loss.mean(), weighted])
        self._batches += 1

    def take(self) -> tuple[float, float] | None:
        """(mean loss, mean weighted loss) in nats, then starts anew; None if nothing was added."""
        if not self._batches:
            return None
        mean, weighted = (self._sums.cpu() / self._batches).tolist()
        self._sums, self._batches = torch.zeros(2), 0
        return mean, weighted

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"sums": self._sums.cpu(), "batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues what ``state_dict`` gave."""
        self._sums, self._batches = state["sums"], state["batches"]


class TrainingClock:
    """A stopwatch that is stopped during validation and drawing.

    Args:
        seconds: initial reading, e.g. of a resumed run.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._elapsed = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Its reading in seconds."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._elapsed + running

    def start(self) -> None:
        """Starts it; no effect on a running clock."""
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        """Stops it."""
        self._elapsed, self._since = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops it inside the block, if it was running."""
        running = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if running:
                self.start()
