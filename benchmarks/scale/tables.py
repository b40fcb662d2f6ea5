"""The tables of ``docs/scale.md``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.scale import counts
from benchmarks.scale.counts import MODELS, SINGLE, Architecture
from benchmarks.scale.seconds import (
    DOMAINS,
    STORAGE,
    Changes,
    Setting,
    backward_seconds,
    loop_seconds,
    published,
    schedule,
    schedule_run,
    shares,
    step_seconds,
)

GPUS = (1, 8, 64, 1024)
BOTTLENECK = 5.0
"""Percent of a step at which a part counts as a bottleneck."""
PAGE = Path(__file__).parent.parent.parent / "docs" / "scale.md"


def percent(value: float) -> str:
    """Format with two digits or as whole percents, and as "0" below 0.05."""
    if value >= 9.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.05 else "0"


def table(header: list[str], lines: list[list[str]]) -> str:
    """Write Markdown, all but the first column aligned to the right."""
    rule = ["---", *(["--:"] * (len(header) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


def _by_model(header: list[str], figures: Callable[[Architecture], tuple[float, ...]]) -> str:
    def digits(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"

    lines = [[model.name, *map(digits, figures(model))] for model in MODELS]
    return table(["model", *header], lines)


def sizes_table() -> str:
    """What is counted: sizes, FLOPs of a token, and a sketch's share of a step's FLOPs."""

    def figures(model: Architecture) -> tuple[float, ...]:
        training = counts.training_flops(model)
        sizes = (model.parameters / 1e6, model.context, model.sequences, training / 1e9)
        backwards = [counts.partial_backward_flops(model, n) for n in (1, model.layers)]
        sketch = (backwards[0], counts.projection_flops(model), backwards[1])
        return (*sizes, counts.sketch_numbers(model), *(100 * x / training for x in sketch))

    header = ["parameters, M", "T", "sequences a GPU", "GFLOPs a token", "k"]
    header += ["last block: backward, %", "projections, %", "all blocks: backward, %"]
    return _by_model(header, figures)


def bytes_table() -> str:
    """Memory of a GPU, what 1,024 GPUs gather, checkpoints, and exact DoGE's gradients."""

    def figures(model: Architecture) -> tuple[float, ...]:
        tokens, sequences = Setting(model, 1).tokens, Setting(model, GPUS[-1]).batch
        gradients = counts.gradient_bytes(model)
        held = gradients + counts.HALF * model.vocabulary
        sketches = sequences * counts.sketch_numbers(model) * SINGLE
        written, exact = counts.checkpoint_bytes(model), DOMAINS * SINGLE * model.parameters
        read = sequences * model.context * counts.token_gradient_bytes()
        means = 2 * counts.domain_mean_bytes(model, DOMAINS)  # sums, and means over time
        sizes = (tokens * gradients, tokens * held, sketches, read, means)
        return (*(size / 1e6 for size in sizes), written / 1e9, written / STORAGE, exact / 1e9)

    header = ["output gradients, MB", "held by one backward, MB", "sketches gathered, MB"]
    header += ["schedule: gathered, MB", "schedule: kept, MB"]
    return _by_model([*header, "checkpoint, GB", "written in, s", "exact DoGE, GB"], figures)


def _by_gpus(parts_of: Callable[[Setting], dict[str, float]]) -> str:
    header, lines = ["model", "GPUs", "sequences", "step, ms"], []
    header += parts_of(Setting(MODELS[0], 1))
    for model in MODELS[::2]:
        for gpus in GPUS:
            setting = Setting(model, gpus)
            name = model.name if gpus == GPUS[0] else ""
            line = [name, f"{gpus:,}", f"{setting.batch:,}", f"{1e3 * step_seconds(setting):,.0f}"]
            for share in shares(parts_of(setting), setting).values():
                line.append(f"**{percent(share)}**" if share >= BOTTLENECK else percent(share))
            lines.append(line)
    return table(header, lines)


def published_table() -> str:
    """What published DoGraph adds to a step, in percent of it; beside it, what else may wait."""

    def parts_of(setting: Setting) -> dict[str, float]:
        parts = published(setting)
        waits = {"second backward": backward_seconds(setting), "the loop": loop_seconds(setting)}
        return {**parts, "total": sum(parts.values()), **waits}

    return _by_gpus(parts_of)


def schedule_table() -> str:
    """What the schedule adds to a step that reads gradients, and to a run, in percent."""

    def parts_of(setting: Setting) -> dict[str, float]:
        parts = schedule(setting)
        unprobed = {name: part for name, part in parts.items() if name != "probe"}
        runs = [schedule_run(setting, each) for each in (unprobed, parts)]
        total = sum(unprobed.values())
        return {**unprobed, "total": total, "probe": parts["probe"]} | {
            "over a run": runs[0],
            "… with a probe": runs[1],
        }

    return _by_gpus(parts_of)


def first_table() -> str:
    """The least number of GPUs (powers of two) at which a part of DoGraph costs 5 % of a step."""

    def parts_of(setting: Setting) -> dict[str, float]:
        waits = {"second backward": backward_seconds(setting), "the loop": loop_seconds(setting)}
        return shares({**published(setting), **waits}, setting)

    names = list(parts_of(Setting(MODELS[0], 1)))
    lines = []
    for model in MODELS:
        by_gpus = {2**power: parts_of(Setting(model, 2**power)) for power in range(11)}
        least = [
            next((f"{n:,}" for n, parts in by_gpus.items() if parts[name] >= BOTTLENECK), "–")
            for name in names
        ]
        lines.append([model.name, *least])
    return table(["model", *names], lines)


def remedies_table() -> str:
    """What published DoGraph adds in all, in percent of a step, as it is and if changed."""
    remedies = {
        "as it is": Changes(),
        "K-means fitted to 512 sequences": Changes(fitted=512),
        "… sketches sent with the losses, weights as a tensor": Changes(fitted=512, packed=True),
        "… and K-means on the GPU": Changes(on_device=True, packed=True),
        "centres of the step before": Changes(late=True),
    }
    settings = [Setting(model, gpus) for model in (MODELS[0], MODELS[-1]) for gpus in (64, 1024)]
    totals = [
        [sum(shares(published(each, changes), each).values()) for each in settings]
        for changes in remedies.values()
    ]
    lines = [[name, *map(percent, line)] for name, line in zip(remedies, totals, strict=True)]
    header = [f"{each.model.name}, {each.gpus:,} GPUs" for each in settings]
    return table(["published DoGraph", *header], lines)


TABLES: dict[str, Callable[[], str]] = {
    "sizes": sizes_table,
    "published": published_table,
    "schedule": schedule_table,
    "first": first_table,
    "bytes": bytes_table,
    "remedies": remedies_table,
}


def page_with_tables(page: str) -> str:
    """Fill each table in between its two markers.

    Raises:
        ValueError: the page has no markers for a table.
    """
    for name, build in TABLES.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        before, marker, rest = page.partition(begin)
        if not marker:
            raise ValueError(f"the page has no place for the table {name!r}: add {begin}")
        page = f"{before}{begin}\n{build()}\n{end}{rest.partition(end)[2]}"
    return page
