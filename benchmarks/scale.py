"""Tables of ``docs/scale.md``: what mixing costs from GPT-2 small to 7 B, on 1 to 1,024 GPUs.

``python -m benchmarks.scale`` prints them, ``--write`` puts them into the page, ``--figure`` draws
``docs/figures/scale.png``, ``--device A100`` prints them for that GPU.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import cost_counts as counts
from benchmarks.cost_counts import MODELS, SINGLE
from benchmarks.cost_model import (
    A100,
    BOTTLENECK,
    DOMAINS,
    H100,
    STORAGE,
    Changes,
    Device,
    Setting,
    checkpoint_share,
    doge_exact,
    doremi,
    loop_seconds,
    published,
    schedule,
    shares,
    step_seconds,
)
from benchmarks.measuring import Row

GPUS = (1, 8, 64, 256, 1024)
ONE_BACKWARD = Changes(one_backward=True)
WITH_SAMPLE = Changes(one_backward=True, clustered=512)
REMEDIES = {
    "two backwards, as under FSDP": Changes(),
    "one backward, as it is else": ONE_BACKWARD,
    "… and K-means fitted to 512 sequences": WITH_SAMPLE,
    "… and sketches sent with the losses, weights as a tensor": Changes(
        one_backward=True, clustered=512, packed=True
    ),
    "one backward, K-means on the GPU, messages so": Changes(
        one_backward=True, on_device=True, packed=True
    ),
    "one backward, the centres of the step before": Changes(one_backward=True, late=True),
}
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"


def total(parts: dict[str, float]) -> float:
    """Their sum."""
    return sum(parts.values())


def percent(value: float) -> str:
    """Two digits or whole percents, "0" for what is less than a thousandth."""
    if value >= 9.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.05 else "0"


def largest(parts: dict[str, float]) -> str:
    """Name of the largest part, bold where it is a bottleneck."""
    name = max(parts, key=lambda part: parts[part])
    return f"**{name}**" if parts[name] >= BOTTLENECK else name


def table(header: list[str], lines: list[list[str]]) -> str:
    """In Markdown, all but the first column to the right."""
    rule = ["---", *(["--:"] * (len(header) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


def sizes_table(device: Device) -> str:
    """What is counted, without a clock."""
    header = ["model", "parameters, M", "tokens a sequence", "sequences a GPU", "GFLOPs a token"]
    header += ["last block: backward, %", "projections, %", "k"]
    header += ["all blocks: backward, %", "projections, %", "k"]
    lines = []
    for model in MODELS:
        line = [model.name, f"{model.parameters / 1e6:,.0f}", f"{model.context:,}"]
        training = counts.training_flops(model)
        line += [str(model.sequences), f"{training / 1e9:.2f}"]
        for blocks in (1, model.layers):
            passed = counts.partial_backward_flops(model, blocks)
            projected = counts.projection_flops(model, blocks)
            line += [f"{100 * passed / training:.1f}", f"{100 * projected / training:.3f}"]
            line += [f"{counts.sketch_numbers(model, blocks):,}"]
        lines.append(line)
    return table(header, lines)


def _by_gpus(device: Device, cells: Callable[[Setting], list[str]]) -> list[list[str]]:
    lines = []
    for model in MODELS:
        for gpus in GPUS:
            setting = Setting(model, gpus, device)
            step = f"{1000 * step_seconds(setting):,.0f}"
            name = model.name if gpus == GPUS[0] else ""
            lines.append([name, f"{gpus:,}", f"{setting.batch:,}", step, *cells(setting)])
    return lines


def published_table(device: Device) -> str:
    """What published DoGraph adds to a step, in percent of it."""

    def cells(setting: Setting) -> list[str]:
        parts = shares(published(setting, ONE_BACKWARD), setting)
        second = shares(published(setting), setting)["backward"]
        del parts["backward"]  # shared with training's own
        loop = 100 * loop_seconds(setting) / step_seconds(setting)
        values = [*parts.values(), total(parts), second, loop]
        return [*map(percent, values), largest(parts)]

    header = ["model", "GPUs", "sequences", "step, ms", "projections", "messages"]
    header += ["K-means, solve", "total", "(a second backward)", "(the loop)", "largest part"]
    return table(header, _by_gpus(device, cells))


def schedule_table(device: Device) -> str:
    """What the schedule adds to a step, in percent of it."""

    def cells(setting: Setting) -> list[str]:
        parts = shares(schedule(setting), setting)
        shared = total(shares(schedule(setting, Changes(shared_probe=True)), setting))
        return [*map(percent, [*parts.values(), total(parts), shared]), largest(parts)]

    header = ["model", "GPUs", "sequences", "step, ms", "sketched steps", "probe", "messages"]
    header += ["K-means, solve", "total", "total, probe shared out", "largest part"]
    return table(header, _by_gpus(device, cells))


def first_table(device: Device) -> str:
    """The least number of GPUs (powers of two) at which a part costs 5 % of a step."""

    def parts(setting: Setting) -> dict[str, float]:
        ours = {"the loop": loop_seconds(setting)}
        own = published(setting)
        own["second backward, if sharded"] = own.pop("backward")
        planned = {f"schedule: {name}": part for name, part in schedule(setting).items()}
        return shares({**own, **ours, **planned}, setting)

    names = list(parts(Setting(MODELS[0], 1, device)))
    lines = []
    for model in MODELS:
        found = [parts(Setting(model, 2**power, device)) for power in range(11)]
        line = [model.name]
        for name in names:
            over = [2**power for power, each in enumerate(found) if each[name] >= BOTTLENECK]
            line.append(f"{over[0]:,}" if over else "–")
        lines.append(line)
    return table(["model", *names], lines)


def bytes_table(device: Device) -> str:
    """Memory of a GPU, messages and checkpoints."""
    header = ["model", "output gradients, MB", "held by one backward, MB"]
    header += ["sketches gathered, MB", "weights broadcast, KB", "exact DoGE, GB"]
    header += ["DoReMi's reference, GB", "checkpoint, GB", "written in, s", "of the run, %"]
    lines = []
    for model in MODELS:
        here, many = Setting(model, 1, device), Setting(model, GPUS[-1], device)
        written = counts.checkpoint_bytes(model)
        figures = (
            here.tokens * counts.record_bytes(model) / 1e6,
            here.tokens * counts.held_bytes(model) / 1e6,
            many.batch * counts.sketch_numbers(model) * SINGLE / 1e6,
            many.batch * SINGLE / 1e3,
            counts.domain_gradient_bytes(model, DOMAINS) / 1e9,
            SINGLE * model.parameters / 1e9,
            written / 1e9,
            written / STORAGE,
            100 * checkpoint_share(model),
        )
        lines.append([model.name, *map(percent, figures)])
    return table(header, lines)


def others_table(device: Device) -> str:
    """What DoReMi's and exact DoGE's proxies add to a step, in percent of it."""
    counted = (8, 64, 1024)
    header = ["model", *(f"DoReMi, {gpus:,} GPUs" for gpus in counted)]
    header += [f"exact DoGE, {gpus:,} GPUs" for gpus in counted]
    lines = []
    for model in MODELS:
        settings = [Setting(model, gpus, device) for gpus in counted]
        values = [total(shares(doremi(each), each)) for each in settings]
        values += [total(shares(doge_exact(each), each)) for each in settings]
        lines.append([model.name, *map(percent, values)])
    return table(header, lines)


def remedies_table(device: Device) -> str:
    """What published DoGraph adds in all, in percent of a step, if things were done otherwise."""
    settings = [
        Setting(model, gpus, each)
        for model in (MODELS[0], MODELS[-1])
        for each in (device,)
        for gpus in (64, 1024)
    ]
    settings.append(Setting(MODELS[-1], GPUS[-1], A100))
    names = [f"{each.model.name}, {each.gpus:,} {each.device.name}" for each in settings]
    lines = []
    for name, changes in REMEDIES.items():
        values = [total(shares(published(each, changes), each)) for each in settings]
        lines.append([name, *map(percent, values)])
    return table(["published DoGraph", *names], lines)


TABLES: dict[str, Callable[[Device], str]] = {
    "sizes": sizes_table,
    "published": published_table,
    "schedule": schedule_table,
    "first": first_table,
    "bytes": bytes_table,
    "others": others_table,
    "remedies": remedies_table,
}


def page_with_tables(page: str) -> str:
    """The page with each table between its two markers."""
    for name, build in TABLES.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"the page has no place for the table {name!r}")
        text = f"{begin}\n{build(H100)}\n{end}"
        page = pattern.sub(lambda _, text=text: text, page)  # type: ignore[misc]
    return page


def rows() -> list[Row]:
    """Predictions for this machine against what is measured in the same process."""
    from benchmarks.scale_measured import rows as measured

    return measured()


def main() -> None:
    """Prints, writes or draws."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--device", choices=["H100", "A100"], default="H100")
    parser.add_argument("--write", action="store_true", help="tables into docs/scale.md")
    parser.add_argument("--figure", action="store_true", help="docs/figures/scale.png")
    arguments = parser.parse_args()
    if arguments.write:
        PAGE.write_text(page_with_tables(PAGE.read_text()))
    if arguments.figure:
        from benchmarks.scale_figure import draw

        print(draw(PAGE.parent / "figures" / "scale.png"))
    if not arguments.write and not arguments.figure:
        device = {"H100": H100, "A100": A100}[arguments.device]
        for build in TABLES.values():
            print(f"{build.__doc__}\n\n{build(device)}\n")


if __name__ == "__main__":
    main()
