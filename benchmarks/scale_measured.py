"""What the cost model predicts for this machine, beside what is measured in the same process.

The clock is calibrated once on a nano training step and once on a thin product; the rest follows
from counts. GPUs and networks are not measured here.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from benchmarks import cost_counts as counts
from benchmarks import cost_model as model_of
from benchmarks.measuring import Row, growth
from benchmarks.scale_counted import (
    BATCH,
    CONTEXT,
    MICRO,
    NANO,
    VOCABULARY,
    byte_rows,
    count_rows,
    network,
    roughly,
    sequence_losses,
)
from dograph.data.sampler import MixtureSampler
from dograph.graph.clusters import cluster_counts, cluster_means, cluster_sequences, cluster_spread
from dograph.graph.kernel import gradient_kernel
from dograph.graph.solver import GraphSolver
from dograph.signals.sketches import SequenceSketcher, SketchSettings

ROUNDS, SEEDS = 5, 5
CLUSTERED = (32, 256, 2048)
BYTES_CONTEXT = 32


class Timed:
    """A model with its training step, and the parts of a sketch in the plain two-pass way."""

    def __init__(self, model: counts.Architecture) -> None:
        self.model, self.real = model, network(model)
        self.tokens = torch.randint(VOCABULARY, (BATCH, CONTEXT + 1))
        self.sketcher = SequenceSketcher(self.real, SketchSettings())
        self.sketcher.recording = False
        self.outputs: list[Tensor] = []
        for module in self.sketcher.modules.values():
            module.register_forward_hook(lambda _, __, output: self.outputs.append(output))

    def train(self) -> None:
        """Forward and backward."""
        self.outputs.clear()
        self.real.zero_grad()
        sequence_losses(self.real, self.tokens).mean().backward()

    def sketch(self) -> tuple[float, float]:
        """Seconds of a sketch, and of a backward down to the same outputs, from one forward."""
        self.outputs.clear()
        self.sketcher.recording = True
        losses = sequence_losses(self.real, self.tokens)
        self.sketcher.recording = False
        whole = cpu_seconds(self.sketcher.sketch, losses)
        return whole, cpu_seconds(_down, losses.sum(), self.outputs)


class Matrices(nn.Module):
    """A block's matrices side by side, so that a sketch of them is little but projections."""

    def __init__(self, model: counts.Architecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*sides, bias=False) for sides in model.block)
        self.inputs = [torch.randn(BATCH, CONTEXT, n_in) for n_in, _ in model.block]
        self.slopes = [torch.randn(BATCH, CONTEXT, n_out) for _, n_out in model.block]
        self.outputs: list[Tensor] = []
        self.sketcher = SequenceSketcher(self, SketchSettings(blocks=["layers"]))

    def forward(self) -> Tensor:
        """(B,) losses whose gradients by the outputs are the slopes."""
        self.outputs = [layer(x) for layer, x in zip(self.layers, self.inputs, strict=True)]
        parts = zip(self.outputs, self.slopes, strict=True)
        return torch.stack([(output * slope).sum((1, 2)) for output, slope in parts]).sum(0)

    def sketch(self) -> float:
        """Seconds of a sketch less those of the backward that brings the slopes."""
        losses = self()
        whole = cpu_seconds(self.sketcher.sketch, losses)
        total = losses.sum()
        return whole - cpu_seconds(_down, total, self.outputs)


def _down(total: Tensor, outputs: list[Tensor]) -> None:
    torch.autograd.grad(total, outputs, retain_graph=True)


def cpu_seconds(action: Callable[..., object], *arguments: object) -> float:
    """Of one call, on one core; what else the machine does counts less than by a clock."""
    start = time.process_time()
    action(*arguments)
    return time.process_time() - start


def median_seconds(action: Callable[..., object], rounds: int) -> float:
    """Median over calls after one that is not counted."""
    return statistics.median([cpu_seconds(action) for _ in range(rounds + 1)][1:])


def measured_times() -> dict[str, float]:
    """Median seconds of steps, sketches and their parts, turn by turn."""
    # Many, so that they come from memory and not from the cache, as a model's outputs do.
    wide, thin = torch.randn(20, BATCH * CONTEXT, 320), torch.randn(320, counts.RANK)
    square, logits = torch.randn(1024, 1024), torch.randn(BATCH * CONTEXT, VOCABULARY)
    models = {model.name: (Timed(model), Matrices(model)) for model in (NANO, MICRO)}
    times: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS + 1):
        times["square"].append(cpu_seconds(torch.mm, square, square))
        times["thin"].append(cpu_seconds(lambda: [each @ thin for each in wide]) / len(wide))
        times["add"].append(cpu_seconds(torch.add, logits, 1.0))
        for name, (timed, matrices) in models.items():
            times[f"{name} step"].append(cpu_seconds(timed.train))
            whole, down = timed.sketch()
            times[f"{name} sketch"].append(whole)
            times[f"{name} backward"].append(down)
            times[f"{name} projections"].append(matrices.sketch())
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def time_rows() -> list[Row]:
    """Steps and sketches: calibrated on nano's training step, predicted for the others."""
    found, tokens = measured_times(), BATCH * CONTEXT
    rate = tokens * counts.training_flops(NANO) / found["nano step"]
    thin_rate = 2 * tokens * 320 * counts.RANK / found["thin"]
    memory = 2 * counts.SINGLE * tokens * VOCABULARY / found["add"]
    share = rate / (2 * 1024**3 / found["square"])
    calibration = (
        f"{1000 * found['nano step']:.0f} ms, {rate / 1e9:.1f} GFLOP/s, {share:.0%} of a square "
        f"product's; thin products reach {thin_rate / rate:.0%} of that; memory "
        f"{memory / 1e9:.1f} GB/s"
    )
    note = f"{BATCH} × {CONTEXT} tokens, float32, no optimiser; CPU time of one thread"
    predicted = counts.training_flops(MICRO) / counts.training_flops(NANO)
    measured = found["micro step"] / found["nano step"]
    rows = [
        Row("calibration: nano's training step", calibration, note=note),
        roughly(
            "micro's step over nano's",
            predicted,
            measured,
            "",
            "by FLOPs; nano spends more of its step on the loss, which is memory and no FLOPs",
        ),
    ]
    for model in (NANO, MICRO):
        name = model.name
        down = tokens * counts.partial_backward_flops(model) / rate
        down += tokens * counts.logit_bytes(model, half=False) / memory
        projected = tokens * counts.projection_flops(model) / thin_rate
        whole, step = 100 * (down + projected), found[f"{name} step"]
        rows += [
            roughly(
                f"a sketch by a backward of its own, {name}",
                whole / step,
                100 * found[f"{name} sketch"] / step,
                "% of a step",
            ),
            roughly(
                f"its partial backward, {name}", 1e3 * down, 1e3 * found[f"{name} backward"], "ms"
            ),
            roughly(
                f"its projections, {name}",
                1e3 * projected,
                1e3 * found[f"{name} projections"],
                "ms",
                "`sketch` of matrices side by side; one backward would leave these alone",
            ),
        ]
    return rows


def text_sketches(sequences: int) -> Tensor:
    """(n, 1024) nano's sketches of bytes of real Python, C++ headers and prose."""
    root, library = Path(__file__).parent.parent, Path(torch.__file__).parent
    files = [*root.glob("**/*.py"), *root.glob("**/*.md")]
    files += sorted((library / "include").glob("**/*.h"))[:200]
    data = b"".join(path.read_bytes() for path in sorted(files))
    tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    length = BYTES_CONTEXT + 1
    rows = tokens[: len(tokens) // length * length].view(-1, length)
    chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    model = network(NANO)
    sketcher = SequenceSketcher(model, SketchSettings())
    parts = [
        sketcher.sketch(sequence_losses(model, part)) for part in chosen[:sequences].split(128)
    ]
    return torch.cat(parts)


def kmeans_rows(sketches: Tensor) -> list[Row]:
    """K-means by size, and how it grows."""
    rows, found, expected = [], [], []
    for size in CLUSTERED:
        points = sketches[:size]
        cluster_sequences(points, model_of.CLUSTERS, 0)
        runs = [partial(cluster_sequences, points, model_of.CLUSTERS, s) for s in range(SEEDS)]
        found.append(statistics.median(cpu_seconds(run) for run in runs))
        expected.append(model_of.kmeans_seconds(size, points.shape[1]))
        note = f"nano's sketches of real text, {SEEDS} seeds"
        rows.append(roughly(f"K-means at {size}", 1e3 * expected[-1], 1e3 * found[-1], "ms", note))
    predicted, measured = (growth(CLUSTERED[1:], values[1:]) for values in (expected, found))
    power = Row(
        "K-means, growth exponent in sequences from 256 on",
        f"predicted {predicted:.2f}, measured {measured:.2f}",
        "within 0.3",
        abs(predicted - measured) <= 0.3,
        "more than 1, since iterations grow, too",
    )
    return [*rows, power]


def graph_rows(sketches: Tensor) -> list[Row]:
    """Means and spread of a window, and the graph problem."""
    labels = cluster_sequences(sketches, model_of.CLUSTERS, 0)
    kernel = gradient_kernel(cluster_means(sketches, labels))
    spread, numbers, solver = (
        cluster_spread(sketches, labels),
        cluster_counts(labels),
        GraphSolver(),
    )

    def describe() -> None:
        cluster_means(sketches, labels)
        cluster_spread(sketches, labels)

    described = median_seconds(describe, 9)
    solved = median_seconds(lambda: solver(kernel, spread, numbers), 9)
    predicted = 1e3 * model_of.STATISTICS_NUMBER * sketches.numel()
    return [
        roughly(f"means and spread at {len(sketches)}", predicted, 1e3 * described, "ms"),
        roughly("graph problem, m = 11", 1e3 * model_of.SOLVE, 1e3 * solved, "ms"),
    ]


def sampler_row() -> Row:
    """Drawing a large batch and counting it as trained."""
    size, domains = 2048, model_of.DOMAINS
    sampler = MixtureSampler([[1000] * 50] * domains, [1 / domains] * domains, size, 0)
    batches = iter(sampler)

    def one() -> None:
        next(batches)
        sampler.mark_trained()

    found = median_seconds(one, 9)
    return roughly(f"sampler, a batch of {size}", 1e3 * size * model_of.PICK, 1e3 * found, "ms")


def rows() -> list[Row]:
    """All of them, on one thread."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        sketches = text_sketches(max(CLUSTERED))
        window = sketches[: model_of.WINDOW]
        measured = [*kmeans_rows(sketches), *graph_rows(window), sampler_row()]
        return [*count_rows(), *byte_rows(), *time_rows(), *measured]
