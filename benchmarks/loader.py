"""DataMixer with live weights against litdata's CombinedStreamingDataset, on one store."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader

from benchmarks.measuring import Row, median_ratio
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store
from dograph.data.data_mixer import DataMixer

WORKERS = (0, 1, 2)
ROUNDS = 9
BATCHES = 250
"""Batches in a round: so few that no domain of the environment's corpus, and so litdata's, ends."""
CHANGES = 20
"""Changes of weights whose delay is measured."""


def ours(data: DataMixer) -> Iterator[int]:
    """Yield the size of each batch; set new weights after each, as in training."""
    draw = np.random.default_rng(0)
    for batch in data.train_dataloader():
        data.sampler.mark_trained()
        data.sampler.set_weights(draw.dirichlet(np.ones(len(data.domains))))
        yield len(batch.tokens)


def theirs(store: Store, data: DataMixer) -> Iterator[int]:
    """Yield the same from litdata's own mixture, whose weights are fixed."""
    datasets = [
        StreamingDataset(
            str(store.folder(entry.name, "train")),
            item_loader=TokensLoader(data.context + 1),
            shuffle=True,
        )
        for entry in store.domains
    ]
    weights = [1 / len(datasets)] * len(datasets)
    mixture = CombinedStreamingDataset(datasets, seed=0, weights=weights, iterate_over_all=False)
    loader = StreamingDataLoader(mixture, batch_size=data.batch_size, num_workers=data.workers)
    return (len(batch) for batch in loader)


def seconds_a_sequence(batches: Iterator[int]) -> float:
    """Time batches from the second on: the first waits for processes, files and their checks."""
    next(batches)
    start = time.perf_counter()
    sequences = sum(islice(batches, BATCHES))
    return (time.perf_counter() - start) / sequences


def speed(store: Store, workers: int) -> Row:
    """Compare both, interleaved."""
    mine, other = [], []
    for number in range(ROUNDS + 1):  # the first is not counted
        data = DataMixer(corpus=CorpusSettings(str(store.path)), workers=workers)
        data.setup()
        sides = [(mine, ours(data)), (other, theirs(store, data))]
        for times, batches in sides if number % 2 else sides[::-1]:
            times.append(seconds_a_sequence(batches))
    ratio = median_ratio(other[1:], mine[1:])
    rates = [f"{1 / statistics.median(times[1:]):,.0f}" for times in (mine, other)]
    return Row(
        f"sequences a second with live weights over CombinedStreamingDataset, {workers} workers",
        f"{ratio:.2f} ({rates[0]} / {rates[1]})",
        "≥ 1.0",
        ratio >= 1,
        f"ours with new weights after every batch, theirs fixed; {data.batch_size} sequences of "
        f"{data.context + 1} tokens a batch, {len(data.domains)} domains; medians of {ROUNDS} "
        f"rounds of {BATCHES} batches",
    )


def until_new_weights(store: Store, workers: int) -> Row:
    """Measure batches and time from ``set_weights`` to the first batch drawn with them."""
    data = DataMixer(corpus=CorpusSettings(str(store.path)), workers=workers)
    data.setup()
    loader = iter(data.train_dataloader())
    batches, milliseconds = [], []
    for change in range(CHANGES):
        chosen = change % 2
        data.sampler.set_weights([float(s == chosen) for s in range(len(data.domains))])
        start = time.perf_counter()
        for served, batch in enumerate(loader):
            data.sampler.mark_trained()
            if bool((batch.domain == chosen).all()):
                milliseconds.append(1000 * (time.perf_counter() - start))
                batches.append(served)
                break
    return Row(
        f"from new weights to the first batch drawn with them, {workers} workers",
        f"{' or '.join(map(str, sorted(set(batches))))} batches later, "
        f"{statistics.median(milliseconds[1:]):.1f} ms",
        f"data.lookahead = {data.lookahead} batches",
        set(batches) == {data.lookahead},
        f"{CHANGES} changes; loading alone: in training the same number of steps",
    )


def rows() -> list[Row]:
    """Measure speed and delay for every number of workers."""
    store = prepare(CorpusSettings(), progress=False)
    speeds = [speed(store, workers) for workers in WORKERS]
    return speeds + [until_new_weights(store, workers) for workers in WORKERS]
