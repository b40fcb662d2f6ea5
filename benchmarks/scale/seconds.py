"""Seconds of a training step on H100s, and what each mixer adds to it, part by part.

A device's figures are data-sheet peaks, line rates and NCCL's own latencies; the host's were
measured on one core (``check_times`` checks them). ``docs/scale.md`` lists what is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.scale import counts
from benchmarks.scale.counts import SINGLE, Architecture

HALF_RATE, SINGLE_RATE = 989.4e12, 66.9e12
"""FLOP/s of an H100 SXM5: dense bfloat16, and float32 outside tensor cores (data sheet)."""
UTILISATION = 0.4
"""Share of the peak that training reaches; 0.38 … 0.43 for Llama 3 (arXiv 2407.21783)."""
MEMORY, NVLINK, NETWORK, HOST = 3.35e12, 450e9, 50e9, 32e9
"""Bytes/s: HBM3; NVLink, one direction; a GPU's InfiniBand NDR card; PCIe 5 at half its line rate,
for memory that is not pinned."""
NODE = 8
"""GPUs in a node, each with a network card of its own."""
LARGEST_BATCH = 4096
"""Largest global batch in sequences; more GPUs share it."""
CLUSTERS, DOMAINS = 11, 7
"""m of published DoGraph; S of SlimPajama."""
INTERVAL, SKIP, READ, PROBE, RUN = 20, 40, 80, 64, 20_000
"""``DoGraphSchedule`` with ``measure`` 120, its other settings by default: steps between updates,
before the first that reads gradients, that read them, sequences of a probe; and steps of a run."""
BASE, NVLINK_HOP, NETWORK_HOP, TREE_HOP = 6.6e-6, 1.0e-6, 2.7e-6, 5.0e-6
"""Seconds: start of a collective, a ring's hops, a tree's hop between nodes. NCCL's low-latency
protocol (its src/graph/tuning.cc); other protocols take up to five times as long."""
KMEANS_START, KMEANS_NUMBER, KMEANS_ITERATION = 1.0e-3, 1.0e-8, 1.5e-9
"""Seconds of K-means (m = 11) on one core: to start, and for each of the n·k numbers to seed and
in an iteration."""
ITERATIONS, ITERATIONS_SIZE, ITERATIONS_GROWTH = 8, 256, 0.6
"""K-means iterations at 256 sequences, and their growth exponent: sketches of real text took
2 … 4, 6 … 10, 13 … 32 and 41 … 75 at n = 32, 256, 2048 and 4096."""
SOLVE, PICK = 0.25e-3, 0.28e-6
"""Seconds on one core: the graph problem with m = 11; the sampler's draw of one sequence."""
STORAGE = 2.0e9
"""Bytes/s of one writer to a shared file system; assumed."""
PASSES, LAUNCHES = 30, 1.0e-3
"""K-means on a GPU: passes over the sketches, seconds of kernel launches; assumed."""
SORTED, MEAN_PASSES = 256, 30
"""The schedule's sums, assumed: bytes moved to sort a token's place by radix, in 64-bit keys and
values; passes over the domains' means in all updates and the kernel."""


@dataclass(frozen=True)
class Setting:
    """A model trained data-parallel on G GPUs, one micro-batch a step."""

    model: Architecture
    gpus: int

    @property
    def share(self) -> int:
        """Sequences on one GPU."""
        return min(self.model.sequences, LARGEST_BATCH // self.gpus)

    @property
    def batch(self) -> int:
        """B, sequences in the global batch."""
        return self.share * self.gpus

    @property
    def tokens(self) -> int:
        """Tokens on one GPU."""
        return self.share * self.model.context

    def compute(self, flops: float) -> float:
        """Seconds that one GPU's share takes at ``flops`` FLOPs a token in bfloat16."""
        return flops * self.tokens / (UTILISATION * HALF_RATE)

    def moved(self, size: float) -> float:
        """Seconds for ``size`` bytes around a ring through all GPUs and all cards of a node."""
        bus = NVLINK if self.gpus <= NODE else min(NVLINK, NODE * NETWORK)
        return size * (self.gpus - 1) / self.gpus / bus


@dataclass(frozen=True)
class Changes:
    """Changes to published DoGraph that the page weighs; the defaults are the code as it is.

    Attributes:
        fitted: sequences K-means is fitted to, at most; the rest are assigned on the GPU. 0: all.
        on_device: K-means runs on the GPU.
        packed: sketches travel with the losses in one all-gather, weights as a plain tensor.
        late: weights use the centres of the step before, while the new ones are computed.
    """

    fitted: int = 0
    on_device: bool = False
    packed: bool = False
    late: bool = False


def step_seconds(setting: Setting) -> float:
    """Seconds of plain training; its messages hide behind its computation.

    Per parameter 8 bytes cross the ring: float32 gradients twice (all-reduce), or parameters in
    bfloat16 twice and gradients in float32 once (FSDP).
    """
    computed = setting.compute(counts.training_flops(setting.model))
    return max(computed, setting.moved(8 * setting.model.parameters))


def shares(parts: dict[str, float], setting: Setting) -> dict[str, float]:
    """Express parts in percent of a plain training step."""
    step = step_seconds(setting)
    return {name: 100 * part / step for name, part in parts.items()}


def ring_seconds(setting: Setting, size: float) -> float:
    """Seconds of an all-gather or broadcast of ``size`` bytes in all."""
    if setting.gpus == 1:
        return 0.0
    nodes = math.ceil(setting.gpus / NODE)
    hops = (setting.gpus - nodes) * NVLINK_HOP + (nodes - 1) * NETWORK_HOP
    return BASE + hops + setting.moved(size)


def tree_seconds(setting: Setting) -> float:
    """Seconds of an all-reduce of a few bytes."""
    if setting.gpus == 1:
        return 0.0
    nodes, inside = math.ceil(setting.gpus / NODE), min(setting.gpus, NODE) - 1
    return BASE + 2 * (inside * NVLINK_HOP + math.log2(nodes) * TREE_HOP)


def object_seconds(setting: Setting, size: float) -> float:
    """Seconds of ``broadcast_object_list``: the size, then the pickled bytes."""
    return ring_seconds(setting, 8) + ring_seconds(setting, size)


def backward_seconds(setting: Setting) -> float:
    """Seconds from the losses down to the last block's outputs, the logits' traffic included."""
    moved = setting.tokens * counts.logit_bytes(setting.model) / MEMORY
    return setting.compute(counts.partial_backward_flops(setting.model)) + moved


def projection_seconds(setting: Setting) -> float:
    """Seconds of float32 products outside autocast, by FLOPs or bytes, whichever is longer."""
    by_flops = counts.projection_flops(setting.model) / (UTILISATION * SINGLE_RATE)
    return setting.tokens * max(by_flops, counts.projection_bytes(setting.model) / MEMORY)


def kmeans_seconds(sequences: int, numbers: int) -> float:
    """Seconds of K-means on one core; every rank runs it at the same time."""
    iterations = ITERATIONS * (sequences / ITERATIONS_SIZE) ** ITERATIONS_GROWTH
    each = KMEANS_NUMBER + KMEANS_ITERATION * iterations
    return KMEANS_START + each * sequences * numbers


def loop_seconds(setting: Setting) -> float:
    """Seconds that every mixer waits: draw the batch, gather domains and losses, decide together.

    Whether to save or stop takes a barrier and an all-reduce that the host waits for.
    """
    gathers = 2 * ring_seconds(setting, 8 * setting.batch)
    return setting.batch * PICK + gathers + 2 * tree_seconds(setting)


def published(setting: Setting, changes: Changes | None = None) -> dict[str, float]:
    """Seconds that published DoGraph adds to a step, by part; one backward serves both passes."""
    changes = changes or Changes()
    size = setting.batch * counts.sketch_numbers(setting.model) * SINGLE
    weights = SINGLE * setting.batch
    messages = ring_seconds(setting, size) + object_seconds(setting, weights)
    if changes.packed:  # the loop gathers anyway: only the sketches' bytes are added
        messages = setting.moved(size) + ring_seconds(setting, weights)
    host = _clustering_seconds(setting, changes) + SOLVE
    if changes.late:  # every rank waits only for the clusters' counts
        host = max(0.0, host + messages - step_seconds(setting))
        messages = tree_seconds(setting)
    return {
        "projections": projection_seconds(setting),
        "messages": messages,
        "K-means, solve": host,
    }


def _clustering_seconds(setting: Setting, changes: Changes) -> float:
    numbers = counts.sketch_numbers(setting.model)
    sequences = setting.batch * math.ceil(CLUSTERS / setting.batch)  # a small batch fills a window
    if changes.on_device:
        return LAUNCHES + PASSES * sequences * numbers * SINGLE / MEMORY
    fitted = min(sequences, changes.fitted or sequences)
    return fitted * numbers * SINGLE / HOST + kmeans_seconds(fitted, numbers)


def schedule(setting: Setting) -> dict[str, float]:
    """Seconds that the schedule adds, by part, to a step that reads gradients, on average.

    The probe is of one unseen domain; every rank makes all of it.
    """
    model, tokens = setting.model, setting.batch * setting.model.context
    by_flops = counts.token_projection_flops(model) / (UTILISATION * SINGLE_RATE)
    projected = setting.tokens * max(by_flops, counts.token_projection_bytes(model) / MEMORY)
    gathered = counts.token_gradient_bytes()
    sums = tokens * (3 * gathered + SORTED) / MEMORY  # read, and a sum read and written
    means = MEAN_PASSES * counts.domain_mean_bytes(model, DOMAINS) / MEMORY / READ
    sequence = (setting.compute(counts.probe_flops(model)) + projected) / setting.share
    return {
        "projections": projected,
        "messages": ring_seconds(setting, tokens * gathered),
        "sums, means": sums + means,
        "probe": PROBE * sequence / INTERVAL,
    }


def schedule_run(setting: Setting, parts: dict[str, float]) -> float:
    """Seconds that ``parts``, of steps that read gradients, are a step over a run.

    Besides, every update solves and hands its weights over.
    """
    update = SOLVE + 2 * object_seconds(setting, 8 * DOMAINS)
    return sum(parts.values()) * READ / RUN + update / INTERVAL
