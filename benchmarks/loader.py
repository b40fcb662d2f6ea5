"""Sequences a second of DataMixer with live weights over litdata's CombinedStreamingDataset.

Both read the same prepared store, batch by batch, in the main process; interleaved.

    python benchmarks/loader.py --pairs 7 --batches 400
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import islice

import numpy as np
from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader
from rich.console import Console
from rich.table import Table

from dograph.corpus.prepare import prepare
from dograph.corpus.settings import CorpusSettings
from dograph.corpus.store import Store
from dograph.data.mixer import DataMixer


def ours(corpus: CorpusSettings, batches: int, workers: int) -> float:
    """Sequences a second; the weights change after every batch."""
    data = DataMixer(corpus=corpus, workers=workers)
    data.setup()
    loader = iter(data.train_dataloader())
    draw = np.random.default_rng(0)
    next(loader)
    data.sampler.mark_trained()
    start = time.perf_counter()
    for _ in islice(loader, batches):
        data.sampler.mark_trained()
        data.sampler.set_weights(draw.dirichlet(np.ones(len(data.domains))))
    return batches * data.batch_size / (time.perf_counter() - start)


def combined(store: Store, batches: int, workers: int, batch_size: int = 32) -> float:
    """Sequences a second of litdata's own mixture, with fixed weights."""
    datasets = [
        StreamingDataset(
            str(store.folder(entry.name, "train")), item_loader=TokensLoader(129), shuffle=True
        )
        for entry in store.domains
    ]
    weights = [1 / len(datasets)] * len(datasets)
    mixture = CombinedStreamingDataset(datasets, seed=0, weights=weights, iterate_over_all=False)
    loader = iter(StreamingDataLoader(mixture, batch_size=batch_size, num_workers=workers))
    next(loader)
    start = time.perf_counter()
    seen = sum(1 for _ in islice(loader, batches))
    return seen * batch_size / (time.perf_counter() - start)


def main() -> None:
    """Prints both speeds and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    corpus = CorpusSettings()
    store = prepare(corpus, progress=False)
    table = Table(title=f"{arguments.workers} workers, {arguments.batches} batches of 32")
    for column in ("pair", "DataMixer, sequences/s", "CombinedStreamingDataset", "ratio"):
        table.add_column(column, justify="right")
    ratios = []
    for pair in range(arguments.pairs):
        if pair % 2:
            theirs = combined(store, arguments.batches, arguments.workers)
            mine = ours(corpus, arguments.batches, arguments.workers)
        else:
            mine = ours(corpus, arguments.batches, arguments.workers)
            theirs = combined(store, arguments.batches, arguments.workers)
        ratios.append(mine / theirs)
        table.add_row(str(pair + 1), f"{mine:,.0f}", f"{theirs:,.0f}", f"{ratios[-1]:.2f}")
    Console().print(table)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
