"""Which sequence comes next: live domain weights, drawn in the main process."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from dograph.data.epoch_order import DomainPass
from dograph.errors import UserError

Draw = Literal["stratified", "multinomial"]
Pick = tuple[int, int]
ROUNDING = 1e-9


def stratified_counts(
    credit: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], batch_size: int
) -> npt.NDArray[np.int64]:
    """How many sequences of each domain the next batch takes; ``credit`` is carried in place.

    A domain is owed its weight in sequences; what it is owed and did not get is its credit.
    Whole sequences owed are given at once, the rest of the batch to those whose next whole one
    falls due first (earliest deadline first). While the weights stand, every domain's total
    stays within one sequence of what it is owed, after every batch.

    Args:
        credit: (S,) sequences owed so far less those given; sums to 0 before and after.
        weights: (S,) on the simplex.
        batch_size: sequences to give, ≥ 1.

    Returns:
        (S,) counts ≥ 0 that sum to ``batch_size``.
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
    elif missing < 0:  # the weights have moved and more is due at once than a batch holds
        for _ in range(-missing):
            late = np.where(counts > 0, credit - counts, np.inf)
            counts[int(np.argmin(late))] -= 1
    credit -= counts
    return counts


class MixtureSampler(Sampler[list[Pick]]):
    """Draws batches of (domain, index) by domain weights that may change while training runs.

    New weights hold from ``lookahead`` batches later, for any number of loader workers, so that
    prefetching never changes what is drawn. Each domain is passed through without replacement;
    a new pass starts when one ends, and passes (epochs) are counted. Every rank draws the same
    global batch and yields its own slice.

    Args:
        chunk_lengths: for each domain the number of sequences in each of its chunks.
        weights: (S,) on the simplex.
        batch_size: sequences of a global batch.
        seed: of all draws and passes.
        draw: "stratified" (within one sequence of the weights) or "multinomial".
        lookahead: batches between ``set_weights`` and the first batch drawn by it, ≥ 0.
        rank: of this process.
        world_size: number of processes; must divide ``batch_size``.
        reserved: for each domain the indices of sequences that are never drawn. None: none.
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
        self.passes = [
            DomainPass(lengths, seed, s, kept[s]) for s, lengths in enumerate(chunk_lengths)
        ]
        self.generator = np.random.Generator(np.random.PCG64([seed, 0x5A]))
        self.weights = np.array(weights, dtype=np.float64)
        self.credit = np.zeros(len(self.passes))
        self.scheduled: deque[tuple[int, npt.NDArray[np.float64]]] = deque()
        self.in_flight: deque[list[Pick]] = deque()
        self.trained = 0
        self.realised = np.zeros(len(self.passes), dtype=np.int64)
        self._replayed = 0

    @property
    def drawn(self) -> int:
        """Batches drawn so far, those still with prefetching workers included."""
        return self.trained + len(self.in_flight)

    @property
    def epochs(self) -> npt.NDArray[np.float64]:
        """(S,) passes trained through each domain, with fractions."""
        return self.realised / np.array([domain_pass.length for domain_pass in self.passes])

    def set_weights(self, weights: npt.ArrayLike) -> None:
        """Lets new weights hold from the batch ``lookahead`` after those trained so far.

        Args:
            weights: (S,) on the simplex.

        Raises:
            UserError: if a loader has already drawn past that batch.
        """
        start = self.trained + self.lookahead
        if self.drawn > start:
            raise UserError(
                f"{len(self.in_flight)} batches are prefetched but lookahead is "
                f"{self.lookahead}: raise data.lookahead or lower data.workers"
            )
        self.scheduled.append((start, np.array(weights, dtype=np.float64)))

    def mark_trained(self) -> None:
        """Counts the oldest batch handed out as trained."""
        for domain, _ in self.in_flight.popleft():
            self.realised[domain] += 1
        self._replayed = max(self._replayed - 1, 0)
        self.trained += 1

    def upcoming(self, count: int) -> list[list[Pick]]:
        """The next ``count`` global batches to be trained on, drawn now where they were not yet.

        Drawing ahead changes no batch: the loader hands out just these. Ask for no more than the
        rest of the optimiser step, since new weights may hold from the next one.
        """
        while len(self.in_flight) < count:
            self.in_flight.append(self.draw_batch())
        return [self.in_flight[position] for position in range(count)]

    def draw_batch(self) -> list[Pick]:
        """The next global batch, in a random order of domains."""
        while self.scheduled and self.scheduled[0][0] <= self.drawn:
            self.weights = self.scheduled.popleft()[1]
        if self.draw == "stratified":
            counts = stratified_counts(self.credit, self.weights, self.batch_size)
        else:
            counts = self.generator.multinomial(self.batch_size, self.weights)
        domains = self.generator.permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
        return [(domain, self.passes[domain].next()) for domain in domains]

    def __iter__(self) -> Iterator[list[Pick]]:
        """Global batches without end, this rank's slice of each; first what was left over."""
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
        """Without end: the trainer's ``max_steps`` decides the length of a run."""
        return sys.maxsize

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as plain numbers and lists."""
        return {
            "generator": self.generator.bit_generator.state,
            "weights": self.weights.tolist(),
            "credit": self.credit.tolist(),
            "scheduled": [(start, weights.tolist()) for start, weights in self.scheduled],
            "passes": [(domain_pass.epoch, domain_pass.cursor) for domain_pass in self.passes],
            "in_flight": [list(batch) for batch in self.in_flight],
            "trained": self.trained,
            "realised": self.realised.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where ``state_dict`` was taken; batches not yet trained come again.

        Raises:
            UserError: for a state that no sampler of these domains could have.
        """
        self._check_state(state)
        self.generator.bit_generator.state = state["generator"]
        self.weights = np.array(state["weights"])
        self.credit = np.array(state["credit"])
        self.scheduled = deque((start, np.array(w)) for start, w in state["scheduled"])
        for domain_pass, (epoch, cursor) in zip(self.passes, state["passes"], strict=True):
            domain_pass.seek(epoch, cursor)
        self.in_flight = deque([(d, i) for d, i in batch] for batch in state["in_flight"])
        self.trained = int(state["trained"])
        self.realised = np.array(state["realised"], dtype=np.int64)

    def _check_state(self, state: dict[str, Any]) -> None:
        count, lengths = len(self.passes), [domain_pass.bound for domain_pass in self.passes]
        weights = [state["weights"], *(scheduled for _, scheduled in state["scheduled"])]
        picks = [pick for batch in state["in_flight"] for pick in batch]
        for what, good in (
            ("weights", all(_is_mixture(row, count) for row in weights)),
            ("credit", np.isfinite(np.array(state["credit"], float)).all()),
            ("credit", len(state["credit"]) == count),
            ("realised", len(state["realised"]) == count and min(state["realised"]) >= 0),
            ("realised", sum(state["realised"]) == state["trained"] * self.batch_size),
            ("passes", all(epoch >= 0 <= cursor for epoch, cursor in state["passes"])),
            ("in_flight", all(len(batch) == self.batch_size for batch in state["in_flight"])),
            ("in_flight", all(0 <= s < count and 0 <= i < lengths[s] for s, i in picks)),
        ):
            if not good:
                raise UserError(
                    f"the sampler's {what} in the checkpoint fit no sampler of this run"
                )


def _is_mixture(weights: Sequence[float], domains: int) -> bool:
    values = np.array(weights, float)
    return values.shape == (domains,) and bool((values >= 0).all()) and abs(values.sum() - 1) < 1e-6
