"""The end of a run in a table, and in a file that other programs read."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dograph.errors import UserError
from dograph.evaluation.perplexity import summarise
from dograph.files.atomic import read_json, write_json
from dograph.files.records import from_dict
from dograph.files.run_dir import SUMMARY

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from dograph.data.data_mixer import DataMixer

SCORES = ("mean_loss", "worst_loss", "mean_perplexity", "worst_perplexity")


@dataclass(frozen=True)
class DomainSummary:
    """What became of one domain.

    Attributes:
        name: of the domain.
        share: of the sequences trained on.
        effective_share: of the loss weight.
        tokens: trained on.
        epochs: passes through the domain, with fractions.
        validation_loss: mean token loss in nats at the last validation; None without one.
        validation_perplexity: its exponential.
        weight: of the mixer, last.
        average_weight: of the mixer, mean over its updates.
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
        mixer: name of its class.
        steps: optimiser steps done.
        seconds: of training, without validation and figures.
        flops: floating-point operations of training, estimated (``report.cost``).
        domains: in the order of the weights.
        scores: mean_loss, worst_loss, mean_perplexity and worst_perplexity over the domains of
            the last validation; empty without one.
        worst_domain: the one with the highest validation loss; None without validation.
    """

    mixer: str
    steps: int
    seconds: float
    flops: float
    domains: tuple[DomainSummary, ...]
    scores: dict[str, float]
    worst_domain: str | None

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return sum(domain.tokens for domain in self.domains)

    @property
    def tokens_per_second(self) -> float:
        """Of training time; 0 for no time."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def metrics(self) -> dict[str, float]:
        """What the HParams tab compares runs by."""
        return {**self.scores, **self.cost}

    @property
    def cost(self) -> dict[str, float]:
        """Tokens, FLOPs and seconds."""
        return {"tokens": float(self.tokens), "flops": self.flops, "seconds": self.seconds}

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types; a number that is not finite becomes null."""
        content = {
            "mixer": self.mixer,
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "flops": self.flops,
            "tokens_per_second": self.tokens_per_second,
            "mean_loss": None,
            "worst_loss": None,
            "mean_perplexity": None,
            "worst_perplexity": None,
            **self.scores,
            "worst_domain": self.worst_domain,
            "losses": {d.name: d.validation_loss for d in self.domains if self.scores},
            "weights": {
                "last": {d.name: d.weight for d in self.domains},
                "average": {d.name: d.average_weight for d in self.domains},
            },
            "domains": {d.name: asdict(d) for d in self.domains},
        }
        finite: dict[str, Any] = _finite(content)
        return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summarise_run(
    data: DataMixer,
    effective: Any,
    losses: dict[str, float],
    steps: int,
    seconds: float,
    token_flops: float,
) -> RunSummary:
    """Gathers a run's numbers.

    Args:
        data: its sampler and mixer, after training.
        effective: (S,) sums of sequence weights over the run.
        losses: validation loss in nats by domain; empty if there was no validation.
        steps: optimiser steps done.
        seconds: of training.
        token_flops: floating-point operations a token.
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
    scalars = summarise(losses) if losses else {}
    return RunSummary(
        mixer=type(mixer).__name__,
        steps=steps,
        seconds=seconds,
        flops=token_flops * sum(domain.tokens for domain in domains),
        domains=domains,
        scores={key: scalars[f"validation/{key}"] for key in SCORES if losses},
        worst_domain=max(losses, key=lambda name: losses[name]) if losses else None,
    )


def _exponential(loss: float) -> float:
    """``exp(loss)``, infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def final_table(summary: RunSummary) -> Table:
    """One row for each domain, the worst in bold, then mean and worst over domains."""
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    title = f"{summary.mixer} after {summary.steps:,} steps"
    table = Table(title=title, title_justify="left", box=HORIZONTALS, pad_edge=False)
    table.add_column("domain", overflow="fold")
    for heading in ("drawn", "effective", "tokens", "epochs", "loss", "perplexity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for domain in summary.domains:
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
    scores = summary.scores
    for row, tokens in (("mean", f"{summary.tokens:,}"), ("worst", "")):
        table.add_row(
            row,
            "",
            "",
            tokens,
            "",
            _decimals(scores.get(f"{row}_loss"), 4),
            _decimals(scores.get(f"{row}_perplexity"), 2),
        )
    return table


def _decimals(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:,.{places}f}"


def print_summary(
    summary: RunSummary, run_folder: Path, runs_folder: Path, console: Console | None = None
) -> None:
    """Prints the table, speed, the mixer's weights, and how to open TensorBoard.

    Args:
        summary: of the run.
        run_folder: where the run's files are.
        runs_folder: the folder of all runs that TensorBoard is to compare.
        console: where to print. None: standard output.
    """
    from rich.console import Console
    from rich.text import Text

    console = console if console is not None else Console()
    console.print(final_table(summary))
    for line in (
        f"{summary.seconds:,.1f} s of training, {summary.tokens_per_second:,.0f} tokens/s, "
        f"{summary.flops:.2e} FLOPs",
        f"{summary.mixer}'s weights: {_weights(summary)}",
        f"Run folder:  {run_folder}",
        f"Open TensorBoard:  tensorboard --logdir {shlex.quote(str(runs_folder))}",
    ):
        console.print(Text(line), soft_wrap=True)


def _weights(summary: RunSummary) -> str:
    """Last weights by name, and their average in brackets where they have moved."""
    return ", ".join(
        f"{domain.name} {domain.weight:.3f}"
        + (
            ""
            if math.isclose(domain.weight, domain.average_weight, abs_tol=5e-4)
            else f" (average {domain.average_weight:.3f})"
        )
        for domain in summary.domains
    )


def print_costs(stages: Mapping[str, RunSummary], console: Console | None = None) -> None:
    """Prints what every stage cost, and all of them together.

    Args:
        stages: summaries by the stages' names.
        console: where to print. None: standard output.
    """
    from rich.box import HORIZONTALS
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Cost", title_justify="left", box=HORIZONTALS, pad_edge=False)
    table.add_column("stage")
    for heading in ("mixer", "tokens", "FLOPs", "seconds"):
        table.add_column(heading, justify="right")
    for name, summary in stages.items():
        table.add_row(name, summary.mixer, *_cost_cells(summary.cost))
    table.add_section()
    table.add_row("all", "", *_cost_cells(total_cost(stages.values())))
    (console if console is not None else Console()).print(table)


def _cost_cells(cost: Mapping[str, float]) -> tuple[str, str, str]:
    return f"{cost['tokens']:,.0f}", f"{cost['flops']:.2e}", f"{cost['seconds']:,.1f}"


def total_cost(summaries: Iterable[RunSummary]) -> dict[str, float]:
    """Tokens, FLOPs and seconds of several runs together."""
    costs = [summary.cost for summary in summaries]
    return {key: sum(cost[key] for cost in costs) for key in costs[0]}


def read_summary(run_folder: Path) -> RunSummary:
    """What ``write_summary`` wrote.

    Raises:
        UserError: if there is none, or it is damaged or of an earlier version.
    """
    path = run_folder / SUMMARY
    try:
        content = read_json(path)
        given = {
            key: content[key] for key in ("mixer", "steps", "seconds", "flops", "worst_domain")
        }
        given["domains"] = list(content["domains"].values())
        given["scores"] = {key: content[key] for key in SCORES if content[key] is not None}
        return from_dict(RunSummary, given)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = "is damaged or of an earlier version" if path.is_file() else "is missing"
        raise UserError(f"{path} {what}; name the folder of a finished run") from error


def read_stages(folder: Path) -> list[tuple[str, Path]]:
    """(name, folder) of each stage of a finished experiment; empty for any other folder.

    Raises:
        UserError: if the experiment's summary is damaged.
    """
    path = folder / SUMMARY
    try:
        content = read_json(path)
        if content is None or "folder" not in content:
            return []
        return [(str(s["stage"]), folder / str(s["folder"])) for s in content["cost"]["stages"]]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged: run the recipe again, to write it anew") from error


def write_summary(summary: RunSummary, run_folder: Path) -> Path:
    """Writes ``summary.json`` whole or not at all; gives its path."""
    path = run_folder / SUMMARY
    write_json(path, summary.as_json())
    return path
