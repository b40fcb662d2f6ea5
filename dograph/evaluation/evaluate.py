"""A checkpoint to losses, perplexities and bits per byte of every domain."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dograph.data.mixer import DataMixer
from dograph.errors import UserError
from dograph.evaluation.held_out import held_out_losses, open_domains
from dograph.evaluation.scores import Estimate, Score, Scores, scores
from dograph.evaluation.subject import Subject

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(
    subject: Subject,
    sequences: int | None = None,
    batch_size: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    console: Console | None = None,
) -> Scores:
    """Scores a checkpoint on its store's validation text.

    On the run's own corpus with the defaults, the losses are those of the run's last validation.

    Args:
        subject: model and store.
        sequences: of each domain, evenly spaced, ≥ 1. None: as many as the run validates on.
        batch_size: ≥ 1. None: the run's.
        resamples: of the bootstrap, ≥ 1.
        seed: of the bootstrap.
        console: where progress shows. None: nowhere.

    Raises:
        UserError: for numbers out of range, or a domain without a whole sequence.
    """
    sequences = sequences if sequences is not None else _setting(subject, "validation_sequences")
    batch_size = batch_size if batch_size is not None else _setting(subject, "batch_size")
    given = {"sequences": sequences, "batch-size": batch_size, "resamples": resamples}
    for name, value in given.items():
        if value < 1:
            raise UserError(f"--{name} {value}: it must be ≥ 1")
    domains = open_domains(subject)
    bar = Progress(
        TextColumn("validation"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sequences"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=console is None,
    )
    with bar:
        task = bar.add_task("", total=sum(min(sequences, len(domain)) for domain in domains))
        losses = held_out_losses(
            subject, domains, sequences, batch_size, lambda done: bar.advance(task, done)
        )
    return scores(losses, resamples, seed)


def _setting(subject: Subject, key: str) -> int:
    """The run's own, or DataMixer's default."""
    if subject.origin is not None:
        return subject.origin.data[key]
    return int(inspect.signature(DataMixer).parameters[key].default)


def described(subject: Subject) -> dict[str, Any]:
    """What was evaluated on what, in JSON's types."""
    return {
        "checkpoint": str(subject.checkpoint),
        "corpus": str(subject.store.path),
        "fingerprint": subject.store.fingerprint,
        "trained_on_this_corpus": subject.on_own_corpus,
        "split": "validation",
        "context": subject.context,
    }


def scores_table(found: Scores) -> Table:
    """One row for each domain, the worst in bold, then all of them together."""
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    caption = "[…]: 95 % bootstrap over sequences; weighted: by the corpus' train tokens"
    table = Table(
        title="Validation text",
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=HORIZONTALS,
        pad_edge=False,
    )
    table.add_column("domain", overflow="fold")
    for heading in ("tokens", "loss", "perplexity", "bits/byte"):
        table.add_column(heading, justify="right", no_wrap=True)
    for domain in found.domains:
        style = "bold" if domain.name == found.worst_domain else None
        cells = _cells(domain.score)
        table.add_row(Text(domain.name), f"{domain.tokens:,}", *cells, style=style)
    table.add_section()
    for name in ("mean", "worst", "weighted"):
        table.add_row(name, "", *_cells(getattr(found, name)))
    return table


def _cells(score: Score) -> tuple[str, str, str]:
    return _cell(score.loss), f"{score.perplexity.value:,.2f}", _cell(score.bits_per_byte)


def _cell(estimate: Estimate) -> str:
    # The escaped bracket keeps rich from taking an interval for markup.
    return f"{estimate.value:.3f} \\[{estimate.low:.3f}, {estimate.high:.3f}]"
