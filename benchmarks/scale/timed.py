"""The model's seconds beside processor time measured on one core; GPUs are not measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.measuring import Row, growth
from benchmarks.scale import counts, seconds
from benchmarks.scale.counted import (
    BATCH,
    CONTEXT,
    NANO,
    VOCABULARY,
    network,
    sequence_losses,
    sketch_flops,
)
from dograph.data.sampler import MixtureSampler
from dograph.graph.clusters import cluster_counts, cluster_means, cluster_sequences, cluster_spread
from dograph.graph.graph_solver import GraphSolver
from dograph.graph.kernel import gradient_kernel
from dograph.signals.sketches import SequenceSketcher, SketchSettings

MICRO = counts.gpt2("micro", 7, 320, BATCH, VOCABULARY, CONTEXT)
CLUSTERED = (32, 256, 2048)


def cpu_seconds(action: Callable[..., object], *arguments: object) -> float:
    """Return the processor time of one call."""
    start = time.process_time()
    action(*arguments)
    return time.process_time() - start


def median_seconds(action: Callable[[], object]) -> float:
    """Return the median of nine calls after a first, uncounted one."""
    return statistics.median([cpu_seconds(action) for _ in range(10)][1:])


def roughly(quantity: str, predicted: float, measured: float, unit: str, note: str = "") -> Row:
    """Build a row of times, which must agree within a factor of two."""
    ratio = predicted / measured
    figure = f"predicted {predicted:.3g}, measured {measured:.3g}{unit}, ratio {ratio:.2f}"
    return Row(quantity, figure, "within 2×", 0.5 <= ratio <= 2, note)


def sketch_row(model: counts.Architecture) -> Row:
    """Compare a sketch's share of a training step: by FLOPs and the loss's bytes, and by time."""
    tokens = torch.randint(VOCABULARY, (BATCH, CONTEXT + 1))
    plain, sketched = network(model), network(model)
    sketcher, steps, shares = SequenceSketcher(sketched, SketchSettings()), [], []
    for _ in range(6):
        steps.append(cpu_seconds(lambda: sequence_losses(plain, tokens).mean().backward()))
        forward = sketcher.record()
        losses = sequence_losses(sketched, tokens)
        shares.append(100 * cpu_seconds(forward.sketch, losses) / steps[-1])
    logits = torch.randn(BATCH * CONTEXT, VOCABULARY)
    moved = 4 * logits.nbytes  # as `counts.logit_bytes`, without autocast
    memory = 2 * logits.nbytes / median_seconds(lambda: logits + 1)
    predicted = 100 * sketch_flops(model, "last") / counts.training_flops(model)
    predicted += 100 * moved / memory / statistics.median(steps[1:])
    name = f"a sketch with a backward of its own, {model.name}"
    note = f"by FLOPs, and the loss at {memory / 1e9:.1f} GB/s; {BATCH} × {CONTEXT} tokens, float32"
    return roughly(name, predicted, statistics.median(shares[1:]), " % of a step", note)


def text_sketches(sequences: int) -> Tensor:
    """Sketch (n, 1024) bytes of real Python, C++ headers and prose with nano."""
    root, library = Path(__file__).parent.parent.parent, Path(torch.__file__).parent
    files = [*root.glob("**/*.py"), *root.glob("**/*.md")]
    files += sorted((library / "include").glob("**/*.h"))[:200]
    text = bytearray(b"".join(path.read_bytes() for path in sorted(files)))
    tokens, length = torch.frombuffer(text, dtype=torch.uint8).long(), 33
    lines = tokens[: len(tokens) // length * length].view(-1, length)
    chosen = lines[torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))]
    model = network(NANO)
    record = SequenceSketcher(model, SketchSettings()).record
    parts = chosen[:sequences].split(128)
    return torch.cat([record().sketch(sequence_losses(model, part)) for part in parts])


def kmeans_rows(sketches: Tensor) -> list[Row]:
    """Compare K-means by size, and its growth."""
    table, measured, predicted = [], [], []
    for size in CLUSTERED:
        points = sketches[:size]
        runs = [partial(cluster_sequences, points, seconds.CLUSTERS, seed) for seed in range(5)]
        runs[0]()
        measured.append(statistics.median(cpu_seconds(run) for run in runs))
        predicted.append(seconds.kmeans_seconds(size, points.shape[1]))
        note = "nano's sketches of real text, 5 seeds"
        table.append(
            roughly(f"K-means at {size}", 1e3 * predicted[-1], 1e3 * measured[-1], " ms", note)
        )
    ours, theirs = (growth(CLUSTERED[1:], values[1:]) for values in (predicted, measured))
    name = "K-means, growth exponent in sequences from 256 on"
    figure = f"predicted {ours:.2f}, measured {theirs:.2f}"
    note = "more than 1, since iterations grow too"
    return [*table, Row(name, figure, "within 0.3", abs(ours - theirs) <= 0.3, note)]


def host_rows(sketches: Tensor) -> list[Row]:
    """Compare the graph problem and the sampler."""
    labels, solver, size = cluster_sequences(sketches, seconds.CLUSTERS, 0), GraphSolver(), 2048
    kernel = gradient_kernel(cluster_means(sketches, labels))
    spread, numbers = cluster_spread(sketches, labels), cluster_counts(labels)
    even = [1 / seconds.DOMAINS] * seconds.DOMAINS
    sampler = MixtureSampler([[1000] * 50] * seconds.DOMAINS, even, size, 0)
    batches = iter(sampler)
    actions: dict[str, tuple[float, Callable[[], object]]] = {
        "graph problem, m = 11": (seconds.SOLVE, lambda: solver(kernel, spread, numbers)),
        f"sampler, a batch of {size}": (
            size * seconds.PICK,
            lambda: (next(batches), sampler.mark_trained()),
        ),
    }
    return [
        roughly(name, 1e3 * predicted, 1e3 * median_seconds(action), " ms")
        for name, (predicted, action) in actions.items()
    ]


def rows() -> list[Row]:
    """Run all comparisons on one thread."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        sketches = text_sketches(max(CLUSTERED))
        host = host_rows(sketches[:512])
        return [sketch_row(NANO), sketch_row(MICRO), *kmeans_rows(sketches), *host]
