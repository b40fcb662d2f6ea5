"""A forecast for the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import wrap

from rich.console import Console
from rich.text import Text

from dograph.experiments.forecast.domains import DomainForecast
from dograph.experiments.forecast.recipe_forecast import StageForecast
from dograph.experiments.forecast.run_forecast import DDP, FSDP, ONE, RunForecast
from dograph.terminal.progress import duration, print_line
from dograph.terminal.tables import ScreenTable, screen_table

PARTS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "moments": "Adam's moments",
    "activations": "activations",
    "signals": "the mixer's signals",
}
"""Parts of a device's memory as a table names them."""
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
LABELS = 15
"""Columns of the labels beside an overview."""
UNKNOWN = "–"


def print_forecast(stages: Sequence[StageForecast], console: Console) -> None:
    """Print every stage, then what all of them cost together."""
    for stage in stages:
        console.print(Text(_heading(stage), style="bold"))
        for label, text in _lines(stage.run):
            _print_beside(console, label, text)
        for note in stage.run.notes:
            _print_beside(console, "note", note)
        console.print()
        if len(stage.run.memory) > 1:
            console.print(memory_table(stage.run))
            console.print()
        if stage.run.domains is not None:
            console.print(domain_table(stage.run, stage.run.domains))
            console.print()
    if len(stages) > 1:
        console.print(cost_table(stages))


def _heading(stage: StageForecast) -> str:
    rounds = f", at most {stage.rounds} rounds" if stage.rounds > 1 else ""
    if stage.is_swarm:
        return f"{stage.name}: each of a swarm of {stage.rounds:,} runs of fixed mixtures"
    finished = f", finished in {stage.finished}" if stage.finished is not None else ""
    return f"{stage.name}: {stage.run.mixer}{rounds}{finished}"


def _print_beside(console: Console, label: str, text: str) -> None:
    """Print a text beside its label, broken at blanks where its line is too short."""
    room = max(console.width - LABELS, 1)
    first, *more = wrap(text, room, break_long_words=False, break_on_hyphens=False)
    print_line(console, f"  {label:<{LABELS - 2}}{first}")
    for line in more:
        print_line(console, " " * LABELS + line)


def _lines(run: RunForecast) -> Iterator[tuple[str, str]]:
    yield "model", f"{run.architecture}, {run.parameters:,} parameters"
    yield "training", f"{run.steps:,} steps of {run.step_tokens:,} tokens: {run.tokens:,} tokens"
    yield "a step", _step(run)
    yield "compute", f"{run.flops:.2e} FLOPs"
    if ONE in run.memory:
        memory = run.memory[ONE]
        parts = (f"{PARTS[key]} {size(each)}" for key, each in asdict(memory).items() if each)
        yield "memory", f"about {size(memory.total)}: {', '.join(parts)}"
    each, kept = run.checkpoint_bytes, run.checkpoints
    yield "checkpoints", f"{size(each)} each, {kept} kept: {size(kept * each)} on disk"
    if run.seconds is None:
        yield "time", "not measured: add --measure"
    else:
        yield "time", _time(run)


def _step(run: RunForecast) -> str:
    sequences = _counted(run.device_sequences, "sequence")
    parts = [f"{sequences} of {_counted(run.context, 'token')}"]
    if run.micro_batches > 1:
        parts.append(f"{run.micro_batches:,} micro-batches")
    if run.devices.count > 1:
        nodes = f" ({_counted(run.devices.nodes, 'node')})" if run.devices.nodes > 1 else ""
        parts.append(f"{run.devices.count:,} devices{nodes}")
    return " × ".join(parts) + f", {run.precision}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _time(run: RunForecast) -> str:
    assert run.seconds is not None
    a_step = run.seconds / run.steps
    alone = ", by one device here, without waiting" if run.devices.count > 1 else ""
    return f"about {duration(run.seconds)}, {a_step:.3g} s a step{alone}; validation not counted"


def memory_table(run: RunForecast) -> ScreenTable:
    """The memory of a device, part by part, under DDP and under FSDP."""
    asked = f"; the recipe asks for {_asked(run)}" if _asked(run) else ""
    title = f"Memory of each of {run.devices.count:,} devices, estimated{asked}"
    table = screen_table(title, "", *run.memory)
    rows = {key: [asdict(each)[key] for each in run.memory.values()] for key in PARTS}
    for key, values in rows.items():
        if any(values):
            table.add_row(PARTS[key], *map(size, values))
    table.add_section()
    table.add_row("all", *(size(each.total) for each in run.memory.values()))
    return table


def _asked(run: RunForecast) -> str | None:
    """The strategy of the recipe, if it is one of the two."""
    if run.devices.sharded:
        return FSDP
    return DDP if run.devices.strategy.lower().startswith(("auto", "ddp")) else None


def domain_table(run: RunForecast, domains: Sequence[DomainForecast]) -> ScreenTable:
    """A row for each domain: what there is of it, and what the run reads of it."""
    available = sum(each.available for each in domains)
    if any(each.weight is None for each in domains):
        table = screen_table("Corpus", "domain", "tokens")
        for each in domains:
            table.add_row(each.name, f"{each.available:,}")
        table.add_section()
        table.add_row("all", f"{available:,}")
        return table
    moves = f", from which {run.mixer} moves" if run.moves else ""
    title = f"What is drawn at the first weights{moves}"
    columns = ("tokens", "weight", "drawn", "epochs", "repeats from")
    limited = any(each.most is not None for each in domains)
    table = screen_table(title, "domain", *columns, *(["limit"] if limited else []))
    for each in domains:
        most = UNKNOWN if each.most is None else f"{each.most:,}"
        table.add_row(
            each.name,
            f"{each.available:,}",
            f"{each.weight:.1%}",
            f"{each.tokens:,}",
            f"{each.epochs:.2f}",
            UNKNOWN if each.repeats_at is None else f"step {each.repeats_at:,}",
            *([most] if limited else []),
        )
    table.add_section()
    epochs = f"{run.tokens / available:.2f}"
    table.add_row(
        "all", f"{available:,}", "100.0%", f"{run.tokens:,}", epochs, "", *([""] if limited else [])
    )
    return table


def cost_table(stages: Sequence[StageForecast]) -> ScreenTable:
    """What all stages cost."""
    table = screen_table("Cost", "stage", "tokens", "FLOPs", "time")
    for stage in stages:
        run, rounds = stage.run, stage.rounds
        seconds = None if run.seconds is None else rounds * run.seconds
        table.add_row(stage.name, *_costs(rounds * run.tokens, rounds * run.flops, seconds))
    total = total_cost(stages)
    table.add_section()
    table.add_row("all", *_costs(total["tokens"] or 0, total["flops"] or 0, total["seconds"]))
    return table


def _costs(tokens: float, flops: float, seconds: float | None) -> tuple[str, str, str]:
    time = UNKNOWN if seconds is None else duration(seconds)
    return f"{tokens:,.0f}", f"{flops:.2e}", time


def total_cost(stages: Sequence[StageForecast]) -> dict[str, float | None]:
    """Tokens, FLOPs and seconds of all stages, of every round; no seconds if one has none."""
    seconds = [
        None if each.run.seconds is None else each.rounds * each.run.seconds for each in stages
    ]
    known = [each for each in seconds if each is not None]
    return {
        "tokens": sum(each.rounds * each.run.tokens for each in stages),
        "flops": sum(each.rounds * each.run.flops for each in stages),
        "seconds": sum(known) if len(known) == len(stages) else None,
    }


def size(count: float) -> str:
    """Bytes in a unit that leaves three digits: "23.2 MB"."""
    unit, factor = next((each for each in UNITS if count >= each[1]), UNITS[-1])
    number = count / factor
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
