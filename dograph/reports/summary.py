"""A finished run's numbers as a table and as ``summary.json``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dograph.errors import UserError
from dograph.evaluation.perplexity import summarise
from dograph.evaluation.scores import finite_json
from dograph.files.atomic import read_json, write_json
from dograph.files.levels import by_top_level
from dograph.files.records import from_dict
from dograph.files.run_dir import SUMMARY
from dograph.mixers.declared import snapshot_of
from dograph.mixers.target import Target
from dograph.reports.finding import finding, what_limits_cost
from dograph.terminal.tables import as_html, screen_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dograph.data.data_mixer import DataMixer

ROWS = ("target", "mean", "worst")
SCORES = tuple(f"{row}_{kind}" for kind in ("loss", "perplexity") for row in ROWS)


@dataclass(frozen=True)
class DomainSummary:
    """Numbers of one domain at the end of a run.

    Attributes:
        share: share of the sequences trained on.
        effective_share: share of the loss weight.
        tokens: tokens trained on, which are ``epochs`` passes through the domain.
        validation_loss: mean token loss in nats at the last validation; None without one.
        weight: the mixer's last weight; ``average_weight`` is the mean over its updates, of
            ``Phases`` over its steps.
    """

    name: str
    share: float
    effective_share: float
    tokens: int
    epochs: float
    validation_loss: float | None
    validation_perplexity: float | None
    weight: float
    average_weight: float


@dataclass(frozen=True)
class RunSummary:
    """The numbers a finished run is compared by.

    Attributes:
        mixer: name of the mixer's class.
        seconds: seconds of training, without validation and figures.
        flops: floating-point operations of training, estimated (``reports.cost``).
        domains: in the order of the weights.
        scores: losses and perplexities of the target, and mean and worst over all domains of the
            last validation, by the names in ``SCORES``; empty without one.
        worst_domain: the one with the highest validation loss; None without validation.
        target: what the run is judged by, as in its recipe; None: even.
        finding: what the mixer found, in one sentence; None for a mixer that does not say.
        prices: by limit, how strongly it held the last mixture back; empty without limits.
    """

    mixer: str
    steps: int
    seconds: float
    flops: float
    domains: tuple[DomainSummary, ...]
    scores: dict[str, float]
    worst_domain: str | None
    target: Any = None
    finding: str | None = None
    prices: dict[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return sum(domain.tokens for domain in self.domains)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of training; 0 for no time."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def metrics(self) -> dict[str, float]:
        """Scores and cost, for the HParams tab."""
        return {**self.scores, **self.cost}

    @property
    def cost(self) -> dict[str, float]:
        """Tokens, FLOPs and seconds."""
        return {"tokens": float(self.tokens), "flops": self.flops, "seconds": self.seconds}

    def records(self) -> list[dict[str, Any]]:
        """The numbers of every domain, for ``pandas.DataFrame``."""
        return [asdict(domain) for domain in self.domains]

    def _repr_html_(self) -> str:
        """The run's final table, in a notebook."""
        return as_html(final_table(self))

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types; a number that is not finite becomes null."""
        own = ("mixer", "steps", "tokens", "seconds", "flops", "tokens_per_second")
        content = {
            **{name: getattr(self, name) for name in own},
            "target": self.target,
            **dict.fromkeys(SCORES),
            **self.scores,
            "worst_domain": self.worst_domain,
            "finding": self.finding,
            **({"prices": self.prices} if self.prices else {}),
            "losses": {d.name: d.validation_loss for d in self.domains if self.scores},
            "weights": {
                "last": {d.name: d.weight for d in self.domains},
                "average": {d.name: d.average_weight for d in self.domains},
            },
            "domains": {d.name: asdict(d) for d in self.domains},
        }
        return finite_json(content)


def summarise_run(
    data: DataMixer,
    effective: Any,
    losses: dict[str, float],
    steps: int,
    seconds: float,
    token_flops: float,
) -> RunSummary:
    """Collects a run's numbers.

    Args:
        data: the run's sampler and mixer, after training.
        effective: (S,) sums of sequence weights over the run.
        losses: validation loss in nats by domain; empty without a validation.
        steps: optimiser steps done.
        seconds: of training.
        token_flops: floating-point operations per token.
    """
    sampler, mixer = data.sampler, data.mixer
    drawn = sampler.realised / max(int(sampler.realised.sum()), 1)
    counted = np.asarray(effective, dtype=np.float64)
    counted = counted / max(counted.sum(), 1e-30)
    domains = tuple(
        DomainSummary(
            name=name,
            share=float(drawn[index]),
            effective_share=float(counted[index]),
            tokens=int(sampler.realised[index]) * data.context,
            epochs=float(sampler.epochs[index]),
            validation_loss=losses.get(name),
            validation_perplexity=_exponential(losses[name]) if name in losses else None,
            weight=float(mixer.weights[index]),
            average_weight=float(mixer.average_weights[index]),
        )
        for index, name in enumerate(data.domains)
    )
    scalars = summarise(losses, data.target) if losses else {}
    return RunSummary(
        mixer=type(mixer).__name__,
        steps=steps,
        seconds=seconds,
        flops=token_flops * sum(domain.tokens for domain in domains),
        domains=domains,
        scores={key: scalars[f"validation/{key}"] for key in SCORES if losses},
        worst_domain=max(losses, key=lambda name: losses[name]) if losses else None,
        target=data.target.value,
        finding=finding(snapshot_of(mixer)),
        prices=dict(mixer.prices),
    )


def _exponential(loss: float) -> float:
    """``exp(loss)``, infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def final_table(summary: RunSummary) -> Table:
    """One row for each domain, the worst in bold, then the target, mean and worst over domains.

    Before the domains below a level stands a row of their sums, and of the mean of their losses.
    """
    from rich.text import Text

    headings = ("drawn", "effective", "tokens", "epochs", "loss", "perplexity")
    table = screen_table(f"{summary.mixer} after {summary.steps:,} steps", "domain", *headings)
    levels = by_top_level([domain.name for domain in summary.domains])
    for index, domain in enumerate(summary.domains):
        top = next((name for name, below in levels.items() if below[0] == index), None)
        if top is not None:
            table.add_row(*_level_cells(top, [summary.domains[below] for below in levels[top]]))
        table.add_row(
            Text(domain.name),  # as Text: brackets in a name are no markup
            f"{domain.share:.1%}",
            f"{domain.effective_share:.1%}",
            f"{domain.tokens:,}",
            f"{domain.epochs:.2f}",
            _decimals(domain.validation_loss, 4),
            _decimals(domain.validation_perplexity, 2),
            style="bold" if domain.name == summary.worst_domain else None,
        )
    table.add_section()
    for row in ROWS:
        loss, perplexity = (summary.scores.get(f"{row}_{kind}") for kind in ("loss", "perplexity"))
        tokens = f"{summary.tokens:,}" if row == "mean" else ""
        name = Text(f"target: {Target.parse(summary.target).label}" if row == "target" else row)
        table.add_row(name, "", "", tokens, "", _decimals(loss, 4), _decimals(perplexity, 2))
    return table


def _level_cells(name: str, domains: Sequence[DomainSummary]) -> tuple[Text | str, ...]:
    """The cells of a level: sums of the domains below it, and the mean of their losses."""
    from rich.text import Text

    losses = [each.validation_loss for each in domains if each.validation_loss is not None]
    loss = sum(losses) / len(losses) if losses else None
    return (
        Text(f"{name}/ ({len(domains)} domains)", style="italic"),
        f"{sum(each.share for each in domains):.1%}",
        f"{sum(each.effective_share for each in domains):.1%}",
        f"{sum(each.tokens for each in domains):,}",
        "",
        _decimals(loss, 4),
        "" if loss is None else _decimals(_exponential(loss), 2),
    )


def _decimals(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:,.{places}f}"


def print_summary(
    summary: RunSummary, run_folder: Path, runs_folder: Path, console: Console | None = None
) -> None:
    """Prints the table, what was found, speed, weights, and how to open TensorBoard on all runs."""
    from rich.text import Text

    from dograph.terminal.screen import Screen

    console = console or Screen()
    console.print(final_table(summary))
    for line in (
        *(each for each in (summary.finding, what_limits_cost(summary.prices)) if each),
        f"{summary.seconds:,.1f} s of training, {summary.tokens_per_second:,.0f} tokens/s, "
        f"{summary.flops:.2e} FLOPs",
        f"{summary.mixer}'s last weights: {_weights(summary)}",
        f"Run folder:  {run_folder}",
        f"Open TensorBoard:  tensorboard --logdir {shlex.quote(str(runs_folder))}",
    ):
        console.print(Text(line), soft_wrap=True)


def _weights(summary: RunSummary) -> str:
    """Last weights by name, and their averages in brackets if they moved."""
    texts = []
    for domain in summary.domains:
        moved = not math.isclose(domain.weight, domain.average_weight, abs_tol=5e-4)
        average = f" (average {domain.average_weight:.3f})" if moved else ""
        texts.append(f"{domain.name} {domain.weight:.3f}{average}")
    return ", ".join(texts)


def print_costs(stages: Mapping[str, RunSummary], console: Console | None = None) -> None:
    """Prints the cost of every stage and of all together."""
    from dograph.terminal.screen import Screen

    table = screen_table("Cost", "stage", "mixer", "tokens", "FLOPs", "seconds")
    for name, summary in stages.items():
        table.add_row(name, summary.mixer, *_cost_cells(summary.cost))
    table.add_section()
    table.add_row("all", "", *_cost_cells(total_cost(stages.values())))
    (console or Screen()).print(table)


def _cost_cells(cost: Mapping[str, float]) -> tuple[str, str, str]:
    return f"{cost['tokens']:,.0f}", f"{cost['flops']:.2e}", f"{cost['seconds']:,.1f}"


def total_cost(summaries: Iterable[RunSummary]) -> dict[str, float]:
    """Tokens, FLOPs and seconds of several runs together."""
    costs = [summary.cost for summary in summaries]
    return {key: sum(cost[key] for cost in costs) for key in costs[0]}


def read_summary(run_folder: Path) -> RunSummary:
    """Reads what ``write_summary`` wrote; a UserError says if it is missing or damaged."""
    path = run_folder / SUMMARY
    try:
        content = read_json(path)
        own = ("mixer", "steps", "seconds", "flops", "worst_domain")
        values = {key: content[key] for key in own}
        values["target"] = Target.parse(content.get("target")).value
        values["finding"] = content.get("finding")
        values["prices"] = content.get("prices") or {}
        scores = {key: content[key] for key in SCORES if content.get(key) is not None}
        domains = list(content["domains"].values())
        return from_dict(RunSummary, {**values, "domains": domains, "scores": scores})
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = "is damaged or of an earlier version" if path.is_file() else "is missing"
        raise UserError(f"{path} {what}: name the folder of a finished run") from error


def read_stages(folder: Path) -> list[tuple[str, Path]]:
    """(name, folder) of each stage of a finished experiment; empty for any other folder."""
    path = folder / SUMMARY
    try:
        content = read_json(path)
        if content is None or "folder" not in content:
            return []
        return [(str(s["stage"]), folder / str(s["folder"])) for s in content["cost"]["stages"]]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged: run the recipe again, to write it anew") from error


def write_summary(summary: RunSummary, run_folder: Path) -> Path:
    """Writes ``summary.json``, whole or not at all; returns its path."""
    path = run_folder / SUMMARY
    write_json(path, summary.as_json())
    return path
