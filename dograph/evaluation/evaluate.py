"""A checkpoint's losses, perplexities and bits per byte of every domain."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dograph.errors import check_range
from dograph.evaluation.bootstrap import scores
from dograph.evaluation.evaluated_model import EvaluatedModel
from dograph.evaluation.held_out import held_out_losses, open_domains
from dograph.evaluation.run_source import DATA_DEFAULTS
from dograph.evaluation.scores import Interval, Score, Scores
from dograph.terminal.progress import progress_of
from dograph.terminal.tables import screen_table

FEW = 30
"""Sequences of a domain below which its interval rests on a guess at how losses spread."""


def evaluate(
    evaluated: EvaluatedModel,
    sequences: int | None = None,
    batch_size: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    console: Console | None = None,
) -> Scores:
    """Scores a checkpoint on its store's validation text.

    On the run's own corpus with the defaults, the losses are those of the run's last validation
    up to rounding, if it ran in float32 and in one process. They are always in float32 here, while
    a run in bf16 validates in bf16. Several processes validate on equally many sequences each and
    may leave a few of a domain out; here none is.

    Args:
        evaluated: model and store.
        sequences: number of evenly spaced sequences per domain, ≥ 1. None: as in the run.
        batch_size: sequences per forward, ≥ 1. None: the run's.
        resamples: draws of the bootstrap, ≥ 1.
        seed: of the bootstrap.
        console: where progress is shown. None: nowhere.

    Raises:
        UserError: for a number below 1, or a domain without a whole sequence.
    """
    data = DATA_DEFAULTS if evaluated.source is None else evaluated.source.data
    count = data["validation_sequences"] if sequences is None else sequences
    size = data["batch_size"] if batch_size is None else batch_size
    for name, number in (("sequences", count), ("batch-size", size), ("resamples", resamples)):
        check_range(f"--{name}", number, at_least=1)
    domains = open_domains(evaluated)
    total = sum(min(count, len(domain)) for domain in domains)
    with progress_of(console, "validation", total, "sequences") as advance:
        losses = held_out_losses(evaluated, domains, count, size, advance)
    return scores(losses, resamples, seed, evaluated.target)


def describe(evaluated: EvaluatedModel) -> dict[str, Any]:
    """Checkpoint, corpus and context in JSON's types."""
    return {
        "checkpoint": str(evaluated.checkpoint),
        "checkpoint_step": evaluated.identity.step,
        "checkpoint_digest": evaluated.identity.digest,
        "corpus": str(evaluated.store.path),
        "fingerprint": evaluated.store.fingerprint,
        "trained_on_this_corpus": evaluated.on_own_corpus,
        "split": "validation",
        "context": evaluated.context,
        "changed_midway": evaluated.source.changed if evaluated.source else None,
    }


def scores_table(result: Scores) -> Table:
    """One row for each domain, the worst in bold, then all of them together."""
    caption = "[…]: 95 % bootstrap over sequences; weighted: by the corpus' train tokens"
    if result.worst_bits_domain not in (None, result.worst_domain):
        caption += f"; worst bits/byte: {result.worst_bits_domain}'s"
    headings = ("tokens", "loss", "perplexity", "bits/byte")
    table = screen_table("Validation text", "domain", *headings, caption=caption)
    for domain in result.domains:
        style = "bold" if domain.name == result.worst_domain else None
        cells = _cells(domain.score)
        table.add_row(Text(domain.name), f"{domain.tokens:,}", *cells, style=style)
    table.add_section()
    if result.target is not None:
        table.add_row(Text(f"target: {result.target_label}"), "", *_cells(result.target))
    for name in ("mean", "worst", "weighted"):
        table.add_row(name, "", *_cells(getattr(result, name)))
    return table


def _cells(score: Score) -> tuple[str, str, str]:
    return _cell(score.loss), f"{score.perplexity.value:,.2f}", _cell(score.bits_per_byte)


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f} [none]"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def few_sequences_note(result: Scores) -> str | None:
    """Names the domains with fewer than ``FEW`` sequences; None without any."""
    few = [f"{d.name} {d.sequences}" for d in result.domains if d.sequences < FEW]
    if not few:
        return None
    return (
        f"fewer than {FEW} sequences, so that intervals are rough (of one sequence, none): "
        f"{', '.join(few)}; raise --sequences, or prepare more validation text"
    )
