"""What the models of one domain each say of every domain's validation sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dograph.errors import UserError
from dograph.evaluation.evaluated_model import open_evaluated
from dograph.evaluation.held_out import held_out_losses, open_domains
from dograph.evaluation.run_source import DATA_DEFAULTS
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.laws.mixmin import REMEDY
from dograph.experiments.laws.table import ALONE, SequenceLosses


def read_sequences(runs: Sequence[ComparedRun], domains: Sequence[str]) -> SequenceLosses:
    """Losses of the sequences that the runs validate on, by the final checkpoints.

    Args:
        runs: finished, of fixed mixtures, of one recipe; the first of each domain alone counts.
        domains: S that are drawn.

    Raises:
        UserError: for a domain without a run of it alone, or a run without its checkpoint.
    """
    alone: dict[str, ComparedRun] = {}
    for run in runs:
        for domain in run.summary.domains:
            if domain.weight > ALONE:
                alone.setdefault(domain.name, run)
    if missing := [name for name in domains if name not in alone]:
        raise UserError(
            "law mixmin reads one model of each domain alone, and none is of "
            f"{', '.join(missing)}: {REMEDY}"
        )
    by_loss: dict[str, list[np.ndarray]] = {}
    tokens = 0
    for name in domains:
        evaluated = open_evaluated(alone[name].folder)
        data = DATA_DEFAULTS if evaluated.source is None else evaluated.source.data
        sizes = data["validation_sequences"], data["batch_size"]
        for held_out in held_out_losses(evaluated, open_domains(evaluated), *sizes):
            by_loss.setdefault(held_out.domain, []).append(held_out.nats)
            tokens = held_out.tokens
    return SequenceLosses({name: np.stack(rows) for name, rows in by_loss.items()}, tokens)
