"""Which sequence comes next: live domain weights, drawn in the main process."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from dograph.data.epoch_order import EpochOrder
from dograph.errors import UserError

Draw = Literal["stratified", "multinomial"]
Pick = tuple[int, int]
ROUNDING = 1e-9


def stratified_counts(
    credit: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], batch_size: int
) -> npt.NDArray[np.int64]:
    """Number of sequences that the next batch takes from each domain; updates ``credit`` in place.

    Each batch adds weight × batch size to a domain's credit, and each of its sequences drawn takes
    1 off. Whole sequences of credit are drawn at once; the rest of the batch goes to the domains
    whose next whole sequence falls due first (earliest deadline first). While the weights stay the
    same, every domain's total is within one sequence of its due, after every batch.

    Args:
        credit: (S,) sequences due so far minus those drawn; sums to 0 before and after.
        weights: (S,) on the simplex.
        batch_size: sequences to draw, ≥ 1; the (S,) counts ≥ 0 sum to it.
    """
    rate = weights * batch_size
    credit += rate
    counts = np.maximum(np.floor(credit + ROUNDING), 0).astype(np.int64)
    rest = credit - counts
    waiting = np.full(len(weights), np.inf)
    owed = (rest > ROUNDING) & (rate > ROUNDING)
    waiting[owed] = np.ceil((1 - rest[owed]) / rate[owed] - ROUNDING) - rest[owed] * ROUNDING
    missing = batch_size - int(counts.sum())
    if missing > 0:
        order = np.lexsort((-rest, waiting))
        np.add.at(counts, np.resize(order[: max(missing, 1)], missing), 1)
    elif missing < 0:  # the weights have changed, and more is due at once than a batch holds
        for _ in range(-missing):
            late = np.where(counts > 0, credit - counts, np.inf)
            counts[int(np.argmin(late))] -= 1
    credit -= counts
    return counts


def delay_steps(lookahead: int, step_batches: int) -> int:
    """Optimiser steps of ``step_batches`` that new weights take: no step mixes old and new."""
    return -(-lookahead // step_batches)


def systematic_counts(
    shares: npt.NDArray[np.float64], count: int, start: float
) -> npt.NDArray[np.int64]:
    """How many of ``count`` sequences each domain gives, one by one by its share.

    Systematic sampling: (S,) counts are within one of ``share × count``, and their mean over
    ``start``, uniform in [0, 1), is that.

    >>> systematic_counts(np.array([3.0, 0.0, 1.0]), 2, 0.5).tolist()
    [1, 0, 1]
    """
    bounds = np.cumsum(shares / shares.sum())
    places = np.searchsorted(bounds, (start + np.arange(count)) / count, side="right")
    last = int(np.flatnonzero(shares)[-1])  # where rounding leaves the sum below 1
    return np.bincount(np.minimum(places, last), minlength=len(shares))


class MixtureSampler(Sampler[list[Pick]]):
    """Draws batches of (domain, index) by domain weights that may change while training runs.

    New weights take effect ``lookahead`` batches later, for any number of loader workers, so that
    prefetching never changes what is drawn. Each domain is drawn without replacement; when its
    sequences are used up, its next epoch starts in a new order. Every rank draws the same global
    batch and yields its own slice.

    Args:
        chunk_lengths: for each domain the number of sequences in each of its chunks.
        weights: (S,) initial weights, on the simplex.
        batch_size: sequences in a global batch.
        seed: seed of all draws and epochs' orders.
        draw: "stratified" (within one sequence of the weights) or "multinomial".
        lookahead: batches between ``set_weights`` and the first batch drawn by it, ≥ 0.
        rank: this process's rank.
        world_size: number of processes; must divide ``batch_size``.
        reserved: for each domain the indices of sequences that are never drawn. None: none.

    Attributes:
        weights: (S,) weights by which the batch last trained on was drawn.
        in_flight: batches that are drawn and not yet trained on, oldest first.
        trained: number of batches trained on.
        realised: (S,) sequences trained on.
    """

    def __init__(
        self,
        chunk_lengths: Sequence[Sequence[int]],
        weights: npt.ArrayLike,
        batch_size: int,
        seed: int,
        draw: Draw = "stratified",
        lookahead: int = 4,
        rank: int = 0,
        world_size: int = 1,
        reserved: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if batch_size % world_size:
            raise UserError(
                f"a global batch of {batch_size} sequences does not divide among {world_size} ranks"
            )
        self.batch_size, self.draw, self.lookahead = batch_size, draw, lookahead
        self.rank, self.world_size = rank, world_size
        kept = reserved if reserved is not None else [()] * len(chunk_lengths)
        self.orders = [
            EpochOrder(lengths, seed, s, kept[s]) for s, lengths in enumerate(chunk_lengths)
        ]
        self.generator = np.random.Generator(np.random.PCG64([seed, 0x5A]))
        self.weights = np.array(weights, dtype=np.float64)
        self.credit = np.zeros(len(self.orders))
        self.scheduled: deque[tuple[int, npt.NDArray[np.float64]]] = deque()
        self.in_flight: deque[list[Pick]] = deque()
        self.trained = 0
        self.realised = np.zeros(len(self.orders), dtype=np.int64)
        self._replayed = 0

    @property
    def drawn(self) -> int:
        """Number of batches drawn so far, prefetched ones included."""
        return self.trained + len(self.in_flight)

    @property
    def epochs(self) -> npt.NDArray[np.float64]:
        """(S,) epochs trained on of each domain, with fractions."""
        return self.realised / np.array([order.length for order in self.orders])

    def drawn_before(self, step_batches: int = 1) -> npt.NDArray[np.float64]:
        """(S,) sequences drawn before weights that are set now take effect.

        Those trained on, and what the weights give of the batches after them, however many of these
        are prefetched.
        """
        coming = range(self.trained, self._start_of_new(step_batches))
        expected = sum((self._weights_of(batch) for batch in coming), np.zeros(len(self.orders)))
        return np.asarray(self.realised + self.batch_size * expected)

    def _start_of_new(self, step_batches: int) -> int:
        """The first batch that is drawn by weights that are set now."""
        return self.trained + delay_steps(self.lookahead, step_batches) * step_batches

    def set_weights(self, weights: npt.ArrayLike, step_batches: int = 1) -> None:
        """Draw by new (S,) weights from the batch that comes ``lookahead`` after those trained on.

        Rounded up to whole optimiser steps of ``step_batches``, none of which mixes old and new.
        A UserError says which key to change if that batch is already prefetched.
        """
        start = self._start_of_new(step_batches)
        if self.drawn > start:
            raise UserError(
                f"{len(self.in_flight)} batches are prefetched but lookahead is "
                f"{self.lookahead}: raise data.lookahead or lower data.workers"
            )
        self.scheduled.append((start, np.array(weights, dtype=np.float64)))

    def mark_trained(self) -> None:
        """Count the oldest batch in flight as trained on."""
        for domain, _ in self.in_flight.popleft():
            self.realised[domain] += 1
        self.weights = self._weights_of(self.trained)
        while self.scheduled and self.scheduled[0][0] <= self.trained:
            self.scheduled.popleft()
        self._replayed = max(self._replayed - 1, 0)
        self.trained += 1

    def upcoming(self, count: int) -> list[list[Pick]]:
        """The next ``count`` global batches to train on, drawn now unless they are in flight.

        Drawing early changes no batch. Ask only for the rest of the optimiser step: new weights may
        take effect after it.
        """
        while len(self.in_flight) < count:
            self.in_flight.append(self.draw_batch())
        return [self.in_flight[position] for position in range(count)]

    def draw_batch(self) -> list[Pick]:
        """The next global batch, in a random order of domains."""
        weights = self._weights_of(self.drawn)
        if self.draw == "stratified":
            counts = stratified_counts(self.credit, weights, self.batch_size)
        else:
            counts = self.generator.multinomial(self.batch_size, weights)
        domains = self.generator.permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
        return [(domain, self.orders[domain].next()) for domain in domains]

    def _weights_of(self, batch: int) -> npt.NDArray[np.float64]:
        """(S,) weights by which a batch is drawn, given its number, counted from 0."""
        weights = self.weights
        for start, scheduled in self.scheduled:
            if start <= batch:
                weights = scheduled
        return weights

    def __iter__(self) -> Iterator[list[Pick]]:
        """Yield this rank's slice of global batches without end, first of those in flight."""
        self._replayed = 0
        share = self.batch_size // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        while True:
            if self._replayed < len(self.in_flight):
                batch = self.in_flight[self._replayed]
            else:
                batch = self.draw_batch()
                self.in_flight.append(batch)
            self._replayed += 1
            yield batch[mine]

    def __len__(self) -> int:
        """Infinite: the trainer's ``max_steps`` decides the length of a run."""
        return sys.maxsize

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as numbers and lists."""
        return {
            "generator": self.generator.bit_generator.state,
            "weights": self.weights.tolist(),
            "credit": self.credit.tolist(),
            "scheduled": [(start, weights.tolist()) for start, weights in self.scheduled],
            "orders": [(order.epoch, order.cursor) for order in self.orders],
            "in_flight": [list(batch) for batch in self.in_flight],
            "trained": self.trained,
            "realised": self.realised.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from ``state_dict``; batches in flight are served again.

        A UserError refuses a state that no sampler of these domains could have.
        """
        self._check_state(state)
        self.generator.bit_generator.state = state["generator"]
        self.weights = np.array(state["weights"])
        self.credit = np.array(state["credit"])
        self.scheduled = deque((start, np.array(w)) for start, w in state["scheduled"])
        for order, (epoch, cursor) in zip(self.orders, state["orders"], strict=True):
            order.seek(epoch, cursor)
        self.in_flight = deque([(d, i) for d, i in batch] for batch in state["in_flight"])
        self.trained = int(state["trained"])
        self.realised = np.array(state["realised"], dtype=np.int64)

    def _check_state(self, state: dict[str, Any]) -> None:
        count, lengths = len(self.orders), [order.bound for order in self.orders]
        weights = [state["weights"], *(scheduled for _, scheduled in state["scheduled"])]
        picks = [pick for batch in state["in_flight"] for pick in batch]
        for key, valid in (
            ("weights", all(_is_mixture(row, count) for row in weights)),
            ("credit", np.isfinite(np.array(state["credit"], float)).all()),
            ("credit", len(state["credit"]) == count and abs(sum(state["credit"])) < 1e-3),
            ("realised", len(state["realised"]) == count and min(state["realised"]) >= 0),
            ("realised", sum(state["realised"]) == state["trained"] * self.batch_size),
            ("orders", all(epoch >= 0 <= cursor for epoch, cursor in state["orders"])),
            ("in_flight", all(len(batch) == self.batch_size for batch in state["in_flight"])),
            ("in_flight", all(0 <= s < count and 0 <= i < lengths[s] for s, i in picks)),
        ):
            if not valid:
                raise UserError(
                    f"the checkpoint's sampler.{key} does not fit this run's domains and batches: "
                    "resume with the same recipe, or start a new run"
                )


def _is_mixture(weights: Sequence[float], domains: int) -> bool:
    values = np.array(weights, float)
    return values.shape == (domains,) and bool((values >= 0).all()) and abs(values.sum() - 1) < 1e-6
