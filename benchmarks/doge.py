"""DoGE's gradients, exact and sketched: the time of an update compared with a training step.

python -m benchmarks.doge --steps 200 --seeds 0 1 2   # compares the resulting weights
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.measuring import Row, growth, interleaved
from benchmarks.timed_run import timed_run
from dograph.experiments.run import quieten
from dograph.mixers import BaseMixer, DoGE
from dograph.mixers.doge import sketched_kernel
from dograph.signals.domain_gradients import DomainGradientSums
from dograph.signals.recorded_forward import SketchMode
from dograph.signals.sketches import SequenceSketcher, SketchSettings
from dograph.terminal.screen import Screen
from dograph.training.cross_entropy import token_losses
from dograph.training.network import build_network

SOURCES = {
    "exact": SketchSettings(),
    "sketch, model": SketchSettings(blocks="model", rank=32, fresh=True),
    "sketch, all blocks": SketchSettings(blocks="all", rank=32, fresh=True),
    "sketch, last block": SketchSettings(),
}
WARM_UP = 3
DOMAINS = (2, 6, 12, 24)
ASKED = 6
ROUNDS = 9
LEAST = 5.0
VOCABULARY, CONTEXT, BATCH = 4096, 128, 32


def steps_of(domains: int) -> dict[str, Callable[[], object]]:
    """Return training steps of GPT-2 nano, plain and with domain gradients from each source."""
    torch.manual_seed(0)
    sizes = {"n_layer": 4, "n_embd": 160, "n_head": 5, "n_positions": CONTEXT}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    network = build_network("gpt2", {**sizes, **ends, "vocab_size": VOCABULARY})
    tokens = torch.randint(VOCABULARY, (BATCH, CONTEXT + 1))
    domain = torch.arange(BATCH) % domains
    even = torch.full((BATCH,), 1 / BATCH)

    def losses_of(rows: Tensor) -> Tensor:
        logits = network(input_ids=tokens[rows, :-1], use_cache=False).logits
        return token_losses(logits, tokens[rows, 1:]).mean(dim=1)

    def plain() -> None:
        (even * losses_of(torch.arange(BATCH))).sum().backward()
        network.zero_grad()

    exact_gradients = DomainGradientSums(network.parameters(), domains)

    def exact() -> None:
        exact_gradients.add(domain, losses_of)
        exact_gradients.take_kernel()
        plain()

    def sketched(settings: SketchSettings) -> Callable[[], None]:
        def step() -> None:
            sketcher = SequenceSketcher(network, settings)
            forward = sketcher.record(SketchMode.SHARED)
            losses = losses_of(torch.arange(BATCH))
            sketch, reduce_loss = forward.sketch_and_share(losses)
            sketched_kernel(sketch, domain, domains)
            reduce_loss(even, losses).backward()
            network.zero_grad()
            sketcher.detach()

        return step

    return {
        "plain": plain,
        "exact": exact,
        "last block": sketched(SketchSettings()),
        "whole model": sketched(SketchSettings(blocks="model", rank=32)),
    }


def rows() -> list[Row]:
    """Compare exact with sketched updates, and measure growth in the number of domains."""
    quieten()
    more: dict[str, list[float]] = {}
    plain = 0.0
    for domains in DOMAINS:
        times = interleaved(steps_of(domains), ROUNDS)
        plain = statistics.median(times["plain"])
        for name in times:
            extra = [own - base for own, base in zip(times[name], times["plain"], strict=True)]
            more.setdefault(name, []).append(statistics.median(extra) / plain)
    table_rows = []
    place = DOMAINS.index(ASKED)
    for name, target in (("last block", f"≥ {LEAST:.0f}"), ("whole model", "")):
        ratio = more["exact"][place] / max(more[name][place], 1e-3)
        own, exact = 100 * more[name][place], 100 * more["exact"][place]
        note = f"an update takes {exact:.0f} % of a plain step if exact, {own:.1f} % if sketched"
        holds = ratio >= LEAST if target else None
        what = f"DoGE at {ASKED} domains: time of an exact update over a sketched one ({name})"
        table_rows.append(Row(what, f"{ratio:.1f}", target, holds, note))
    by_domains = ", ".join(f"{share:.2f}" for share in more["exact"])
    table_rows.append(
        Row(
            f"exact: growth exponent in domains ({', '.join(map(str, DOMAINS))})",
            f"{growth(DOMAINS, more['exact']):.2f}",
            "",
            None,
            f"{by_domains} plain steps; each domain's sequences pass alone, so smaller batches are "
            "the only extra cost",
        )
    )
    sketch = ", ".join(f"{share:.3f}" for share in more["last block"])
    table_rows.append(Row("sketch (last block): an update in plain steps", sketch))
    return table_rows


def proxy(
    mixer: BaseMixer, sketch: SketchSettings, seed: int, arguments: argparse.Namespace
) -> float:
    """Train a proxy and return the median seconds of its steps."""
    seconds = timed_run(arguments.model, mixer, arguments.steps, sketch, seed)
    return statistics.median(seconds[WARM_UP:])


def main() -> None:
    """Print the weights of each source and seed, and their distance to exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt2_nano", help="a file of configs/model")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--mu", type=float, help="by default as published")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quieten()
    table = Table(title=f"DoGE's average weights after {arguments.steps} steps, {arguments.model}")
    table.add_column("gradients")
    table.add_column("seed", justify="right")
    for seed in arguments.seeds:
        exact = torch.zeros(0)
        for name, sketch in SOURCES.items():
            mixer = DoGE("exact" if name == "exact" else "sketch", "all", mu=arguments.mu)
            seconds = proxy(mixer, sketch, seed, arguments)
            if not table.columns[2:]:
                for heading in (*mixer.domains, "distance to exact", "s a step"):
                    table.add_column(heading, justify="right")
            weights = mixer.average_weights
            exact = weights if name == "exact" else exact
            distance = 0.5 * (weights - exact).abs().sum().item()
            cells = [f"{weight:.3f}" for weight in weights.tolist()]
            table.add_row(name, str(seed), *cells, f"{distance:.3f}", f"{seconds:.3f}")
        table.add_section()
    Screen().print(table)


if __name__ == "__main__":
    main()
