"""Seconds a step on GPUs: training, and what each mixer adds to it, part by part.

Device figures are peaks of data sheets, line rates and NCCL's own latencies; the host's are
measured on one core here (``benchmarks.scale_measured`` checks them). ``docs/scale.md`` says what
is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.cost_counts import (
    SINGLE,
    Architecture,
    checkpoint_bytes,
    domain_gradient_bytes,
    forward_flops,
    logit_bytes,
    partial_backward_flops,
    projection_bytes,
    projection_flops,
    sketch_numbers,
    training_flops,
)

UTILISATION = 0.4
"""Share of the bf16 peak that training reaches; 0.38 … 0.43 for Llama 3 (arXiv 2407.21783)."""
NODE = 8
"""GPUs a node; each has a network card of its own, as in DGX machines."""
LARGEST_BATCH = 4096
"""Sequences; more GPUs than that fills share them out."""
CLUSTERS, DOMAINS = 11, 7
"""m of published DoGraph; S of SlimPajama."""
INTERVAL, OBSERVED, WINDOW, PROBE = 40, 4, 512, 4
"""Defaults of ``DoGraphSchedule``: steps an update, sketched ones, window, probe a domain."""

BASE, NVLINK_HOP, NETWORK_HOP, TREE_HOP = 6.6e-6, 1.0e-6, 2.7e-6, 5.0e-6
"""Seconds: a collective's start, a ring's hops, a tree's hop between nodes. NCCL's low-latency
protocol (its src/graph/tuning.cc, also in torch/_inductor/comm_analysis.py); large messages
travel by protocols of up to five times the latency. A hop inside a node is 0.6e-6 by itself."""
KMEANS_START, KMEANS_NUMBER, KMEANS_ITERATION = 1.0e-3, 1.0e-8, 1.5e-9
"""Seconds of K-means (m = 11): to start, for each of the n·k numbers to seed, and for each number
and iteration, on one core here."""
ITERATIONS, ITERATIONS_SIZE, ITERATIONS_GROWTH = 8, 256, 0.6
"""Iterations until K-means converges at 256 sequences, and how they grow: sketches of real text
took 2 … 4, 6 … 10, 13 … 32 and 41 … 75 at n = 32, 256, 2048 and 4096."""
STATISTICS_NUMBER = 4.5e-9
"""Seconds for each of the n·k numbers: float64 means and spread on one core here."""
SOLVE = 0.25e-3
"""Seconds of the graph problem, m = 11, on one core here; the schedule's is taken alike."""
PICK = 0.28e-6
"""Seconds for the sampler to draw a sequence and count it as trained, on one core here."""
STORAGE = 2.0e9
"""Bytes/s of one writer to a shared file system; assumed."""
CHECKPOINT_MINUTES = 30
"""``report.checkpoint_minutes``, its default."""
BOTTLENECK = 5.0
"""Percent of a step at which a part counts as a bottleneck."""
PASSES, LAUNCHES = 30, 1.0e-3
"""K-means on a GPU: passes over the sketches, seconds of some hundred kernel launches; assumed."""


@dataclass(frozen=True)
class Device:
    """A GPU in its node.

    Attributes:
        name: as printed.
        half: FLOP/s in bfloat16, dense.
        single: FLOP/s in float32 outside tensor cores: torch's default for float32 products.
        memory: bytes/s.
        link: bytes/s to one direction by NVLink.
        network: bytes/s of its network card.
        host: bytes/s to the host by PCIe, half of the line rate, for memory that is not pinned.
    """

    name: str
    half: float
    single: float
    memory: float
    link: float
    network: float
    host: float


H100 = Device("H100", 989.4e12, 66.9e12, 3.35e12, 450e9, 50e9, 32e9)
"""NVIDIA's H100 SXM5 data sheet and architecture paper; InfiniBand NDR, PCIe 5."""
A100 = Device("A100", 312e12, 19.5e12, 2.039e12, 300e9, 25e9, 16e9)
"""NVIDIA's A100 80 GB SXM data sheet; InfiniBand HDR, PCIe 4."""


@dataclass(frozen=True)
class Changes:
    """What could be done otherwise; the defaults are the code as it is.

    Attributes:
        one_backward: output gradients of the unweighted losses, scaled, go on to the rest.
        clustered: sequences that K-means is fitted to, at most; the rest go to the nearest
            centre on the GPU. 0: all.
        on_device: K-means on the GPU.
        packed: sketches go with the losses in one all-gather, weights as a plain tensor.
        late: weights by the centres of the step before; the new ones come about meanwhile.
        shared_probe: ranks share the probe out.
    """

    one_backward: bool = False
    clustered: int = 0
    on_device: bool = False
    packed: bool = False
    late: bool = False
    shared_probe: bool = False


@dataclass(frozen=True)
class Setting:
    """A model on G GPUs with data parallelism, one micro-batch a step.

    Attributes:
        model: its sizes.
        gpus: G.
        device: of every rank.
    """

    model: Architecture
    gpus: int
    device: Device = H100

    @property
    def share(self) -> int:
        """Sequences of one GPU."""
        return min(self.model.sequences, LARGEST_BATCH // self.gpus)

    @property
    def batch(self) -> int:
        """B, sequences of the global batch."""
        return self.share * self.gpus

    @property
    def tokens(self) -> int:
        """Of one GPU."""
        return self.share * self.model.context

    def compute(self, flops: float) -> float:
        """Seconds of so many FLOPs a token of one GPU's share."""
        return flops * self.tokens / (UTILISATION * self.device.half)

    @property
    def bus(self) -> float:
        """Bytes/s of rings that use all cards of a node at once, or NVLink, if that is less."""
        inside = self.device.link
        return inside if self.gpus <= NODE else min(inside, NODE * self.device.network)


def step_seconds(setting: Setting) -> float:
    """Of plain training; gradients (or FSDP's shards) travel while others are computed.

    Per parameter 8 bytes cross the ring: float32 gradients twice (all-reduce), or parameters in
    bfloat16 twice and gradients in float32 once (FSDP).
    """
    moved = 8 * setting.model.parameters * (setting.gpus - 1) / setting.gpus
    return max(setting.compute(training_flops(setting.model)), moved / setting.bus)


def shares(parts: dict[str, float], setting: Setting) -> dict[str, float]:
    """Parts in percent of a plain training step."""
    step = step_seconds(setting)
    return {name: 100 * part / step for name, part in parts.items()}


def ring_seconds(setting: Setting, size: float) -> float:
    """All-gather (or broadcast) of ``size`` bytes in all, along a ring of all ranks."""
    if setting.gpus == 1:
        return 0.0
    nodes = math.ceil(setting.gpus / NODE)
    hops = (setting.gpus - nodes) * NVLINK_HOP + (nodes - 1) * NETWORK_HOP
    return BASE + hops + size * (setting.gpus - 1) / setting.gpus / setting.bus


def tree_seconds(setting: Setting) -> float:
    """All-reduce of a few bytes."""
    if setting.gpus == 1:
        return 0.0
    nodes = math.ceil(setting.gpus / NODE)
    inside = min(setting.gpus, NODE) - 1
    return BASE + 2 * (inside * NVLINK_HOP + math.log2(nodes) * TREE_HOP)


def broadcast_object_seconds(setting: Setting, size: float) -> float:
    """``broadcast_object_list``: the size, then the pickled bytes."""
    return ring_seconds(setting, 8) + ring_seconds(setting, size)


def backward_seconds(setting: Setting, blocks: int = 1) -> float:
    """From the losses to the observed outputs: products, and the logits' way through memory."""
    moved = setting.tokens * logit_bytes(setting.model) / setting.device.memory
    return setting.compute(partial_backward_flops(setting.model, blocks)) + moved


def projection_seconds(setting: Setting, blocks: int = 1) -> float:
    """Float32 products outside autocast: by FLOPs or by bytes, whichever takes longer."""
    by_flops = projection_flops(setting.model, blocks) / (UTILISATION * setting.device.single)
    by_bytes = projection_bytes(setting.model, blocks) / setting.device.memory
    return setting.tokens * max(by_flops, by_bytes)


def kmeans_seconds(sequences: int, numbers: int) -> float:
    """On one core: every rank does it for itself, at the same time."""
    iterations = ITERATIONS * (sequences / ITERATIONS_SIZE) ** ITERATIONS_GROWTH
    each = KMEANS_NUMBER + KMEANS_ITERATION * iterations
    return KMEANS_START + each * sequences * numbers


def loop_seconds(setting: Setting) -> float:
    """What every mixer pays: drawing the batch, gathering domains and losses, a joint decision.

    Whether to save or stop is a barrier and an all-reduce whose answer is waited for, so that the
    GPU has run dry by then and nothing hides the drawing that comes next.
    """
    gathers = 2 * ring_seconds(setting, 8 * setting.batch)
    return setting.batch * PICK + gathers + 2 * tree_seconds(setting)


def published(
    setting: Setting, changes: Changes | None = None, blocks: int = 1
) -> dict[str, float]:
    """Seconds that published DoGraph adds to a step, by part."""
    changes = Changes() if changes is None else changes
    size = setting.batch * sketch_numbers(setting.model, blocks) * SINGLE
    messages = ring_seconds(setting, size)
    messages += broadcast_object_seconds(setting, SINGLE * setting.batch)
    if changes.packed:  # sketches travel in a gather of the loop
        bytes_alone = ring_seconds(setting, size) - ring_seconds(setting, 0)
        messages = bytes_alone + ring_seconds(setting, SINGLE * setting.batch)
    host = _clustering_seconds(setting, changes, blocks) + SOLVE
    if changes.late:  # only the clusters' counts are waited for
        host = max(0.0, host + messages - step_seconds(setting))
        messages = tree_seconds(setting)
    return {
        "backward": 0.0 if changes.one_backward else backward_seconds(setting, blocks),
        "projections": projection_seconds(setting, blocks),
        "messages": messages,
        "K-means, solve": host,
    }


def _clustering_seconds(setting: Setting, changes: Changes, blocks: int) -> float:
    numbers = sketch_numbers(setting.model, blocks)
    sequences = setting.batch * math.ceil(CLUSTERS / setting.batch)  # a window, if too few
    size = sequences * numbers * SINGLE
    if changes.on_device:
        return LAUNCHES + PASSES * size / setting.device.memory
    fitted = min(sequences, changes.clustered or sequences)
    return fitted * numbers * SINGLE / setting.device.host + kmeans_seconds(fitted, numbers)


def schedule(setting: Setting, changes: Changes | None = None) -> dict[str, float]:
    """Seconds that the schedule adds to a step, by part, on average over an interval.

    Sketches need no second backward of their own with ``one_backward``; the probe does, and every
    rank makes all of it.
    """
    changes = Changes() if changes is None else changes
    model, numbers = setting.model, sketch_numbers(setting.model)
    own = 0.0 if changes.one_backward else backward_seconds(setting)
    sketched = own + projection_seconds(setting)
    probes = DOMAINS * PROBE / setting.share / (setting.gpus if changes.shared_probe else 1)
    probe = setting.compute(forward_flops(model)) + backward_seconds(setting)
    probe += projection_seconds(setting)
    gather = ring_seconds(setting, setting.batch * numbers * SINGLE)
    copied = OBSERVED * setting.batch * numbers * SINGLE
    host = kmeans_seconds(WINDOW, numbers) + STATISTICS_NUMBER * WINDOW * numbers + SOLVE
    rare = 2 * broadcast_object_seconds(setting, 8 * DOMAINS)
    return {
        "sketched steps": OBSERVED / INTERVAL * sketched,
        "probe": probes * probe / INTERVAL,
        "messages": (OBSERVED * gather + rare) / INTERVAL,
        "K-means, solve": (copied / setting.device.host + host) / INTERVAL,
    }


def doge_exact(setting: Setting) -> dict[str, float]:
    """One more forward and backward, and an all-reduce of S × P numbers that nothing hides."""
    moved = 2 * domain_gradient_bytes(setting.model, DOMAINS) * (setting.gpus - 1) / setting.gpus
    return {
        "gradients": setting.compute(training_flops(setting.model)),
        "messages": moved / setting.bus
        + broadcast_object_seconds(setting, SINGLE * setting.batch)
        + 2 * broadcast_object_seconds(setting, 8 * DOMAINS),
    }


def doremi(setting: Setting) -> dict[str, float]:
    """A forward of a reference model of the same size."""
    return {
        "reference": setting.compute(forward_flops(setting.model)),
        "messages": ring_seconds(setting, SINGLE * setting.batch)
        + broadcast_object_seconds(setting, SINGLE * setting.batch)
        + 2 * broadcast_object_seconds(setting, 8 * DOMAINS),
    }


def checkpoint_share(model: Architecture) -> float:
    """Of the run's time that all ranks wait while one writes, at the default minutes."""
    return checkpoint_bytes(model) / STORAGE / (60 * CHECKPOINT_MINUTES)
