"""A comparison as text: Markdown, CSV, JSON, and a table for the screen."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dograph.experiments.comparison.comparison import Comparison
from dograph.experiments.comparison.gap import OF_THE_GAP, Gap
from dograph.experiments.comparison.methods import Method, Paired, TimeToTarget
from dograph.experiments.comparison.runs import ComparedRun
from dograph.experiments.comparison.statistics import Estimate

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = (
    "method",
    "seeds",
    "target loss ({target})",
    "mean loss",
    "worst loss",
    "target less {baseline}'s, paired",
    "verdict",
    "p (Holm)",
    "detectable",
    "worst less {baseline}'s, paired",
    "tokens to {baseline}'s end",
    "seconds to it",
    "tokens, all stages",
    "FLOPs",
    "seconds",
)
SHARE = 9
"""Where the column of shares stands, if there is a gap."""
LEGEND = (
    "Losses in nats a token on the validation set: the target's, by which methods are judged; mean "
    "and worst over all domains; mean ± half of the 95 % interval over seeds (Student's t), each "
    "by itself. Differences are paired by seed, below zero is better. p: paired t-test of the "
    "target's difference, adjusted for all methods together (Holm); win, loss: p < 0.05 (ahead, "
    "behind: the same over fewer than 5 seeds, which is no claim); else tie. Detectable: the "
    "smallest true difference that four of five such studies would find, by the spread of the "
    "paired differences. Tokens and seconds to the baseline's end: what it took, with all earlier "
    "stages, to come down to the baseline's final target loss of the same seed, over the seeds "
    "that did."
)
NARROW = 5
"""Domains beside each other where there is little room."""


def summary_rows(comparison: Comparison) -> list[list[str]]:
    """One row a method, under ``headings``."""
    rows = [[*_row(m), *_accuracies(m, comparison.suites)] for m in comparison.methods]
    if comparison.gap and comparison.gap.shares:
        for method, row in zip(comparison.methods, rows, strict=True):
            row.insert(SHARE, str(comparison.gap.shares.get(method.name, "")))
    return rows


def has_shares(comparison: Comparison) -> bool:
    """Whether there is a gap, and so a column of the methods' shares of it."""
    return bool(comparison.gap and comparison.gap.shares)


def _accuracies(method: Method, suites: Sequence[str]) -> list[str]:
    means = [method.accuracies.get(suite) for suite in suites]
    return ["" if mean is None else plus_minus(mean) for mean in means]


def domain_rows(comparison: Comparison) -> list[list[str]]:
    """One row a method: final loss of each domain."""
    return [
        [method.label, *(plus_minus(method.domains[domain]) for domain in comparison.domains)]
        for method in comparison.methods
    ]


def headings(comparison: Comparison) -> list[str]:
    """``HEADINGS`` with target, baseline, shares of a gap, and a column for each suite of tasks."""
    names = {"baseline": comparison.baseline.label, "target": comparison.target.label}
    fixed = [heading.format(**names) for heading in HEADINGS]
    fixed[SHARE:SHARE] = ["of the gap"] if has_shares(comparison) else []
    return [*fixed, *(f"accuracy, {suite.replace('_', ' ')}" for suite in comparison.suites)]


def legend(comparison: Comparison) -> str:
    """What the columns mean."""
    return LEGEND + (OF_THE_GAP if has_shares(comparison) else "")


def _row(method: Method) -> list[str]:
    return [
        method.label,
        str(len(method.runs)),
        plus_minus(method.target),
        plus_minus(method.mean),
        plus_minus(method.worst),
        *_differences(method.paired),
        *_time_to_target(method.time_to_target),
        _short(method.cost["tokens"].mean),
        f"{method.cost['flops'].mean:.2e}",
        f"{method.cost['seconds'].mean:,.0f}",
    ]


def _differences(paired: Paired | None) -> tuple[str, ...]:
    if paired is None:
        return "", "", "", "", ""
    target, worst = (plus_minus(value, signed=True) for value in (paired.target, paired.worst))
    detectable = "" if paired.detectable is None else f"{paired.detectable:.3f}"
    return target, paired.verdict, f"{paired.p:.2g}", detectable, worst


def _time_to_target(time: TimeToTarget | None) -> tuple[str, str]:
    if time is None:
        return "", ""
    if time.tokens is None or time.seconds is None:
        return f"never (0 of {time.seeds})", "never"
    seeds = "" if time.reached == time.seeds else f" ({time.reached} of {time.seeds})"
    return f"{_short(time.tokens.mean)}{seeds}", f"{time.seconds.mean:,.0f}"


def plus_minus(value: Estimate, signed: bool = False, places: int = 3) -> str:
    """Mean ± half of the interval, e.g. "4.630 ± 0.046", "−0.007 ± 0.046"."""
    mean = f"{value.mean:{'+' if signed else ''}.{places}f}".replace("-", "−")
    return mean if value.half is None else f"{mean} ± {value.half:.{places}f}"


def _short(count: float) -> str:
    """Tokens with three digits: 820 k, 1.64 M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            shown = count / size
            digits = max(0, 2 - int(math.log10(shown)))
            return f"{shown:.{digits}f} {unit}"
    return f"{count:.0f}"


def as_markdown(comparison: Comparison) -> str:
    """Both tables, the legend and the notes."""
    parts = [
        _markdown_table(headings(comparison), summary_rows(comparison)),
        legend(comparison),
        "Final loss by domain:",
        _markdown_table(["method", *comparison.domains], domain_rows(comparison)),
        *map(_cell, comparison.notes),
    ]
    return "\n\n".join(parts) + "\n"


def as_narrow_markdown(comparison: Comparison) -> dict[str, str]:
    """The tables cut into pieces that a narrow place can show without breaking words.

    Returns:
        Markdown by the pieces' names, in alphabetical order. The first has legend and notes.
    """
    table = [headings(comparison), *summary_rows(comparison)]
    by_domain = [["method", *comparison.domains], *domain_rows(comparison)]
    columns, rest = len(by_domain[0]), SHARE + 1 + has_shares(comparison)
    some = [_columns(by_domain, at, at + NARROW) for at in range(1, columns, NARROW)]
    final = [_columns(table, 1, 5), legend(comparison), *map(_cell, comparison.notes)]
    return {
        "final_loss": "\n\n".join(final),
        "less_the_baseline": _columns(table, 5, rest),
        "loss_of_each_domain": "\n\n".join(some),
        "tokens_and_time": _columns(table, rest, len(table[0])),
    }


def _columns(table: Sequence[Sequence[str]], first: int, end: int) -> str:
    """Columns ``first`` to ``end`` of a table with headings, behind the methods' names."""
    rows = [[row[0], *row[first:end]] for row in table]
    return _markdown_table(rows[0], rows[1:])


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text with HTML and Markdown escaped; an underscore within a word needs no escape."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*{}\[\]|#~!]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain)


def as_csv(comparison: Comparison) -> str:
    """One line a run, in full digits, for programs."""
    file = io.StringIO()
    rows = [record(run, comparison) for run in comparison.runs]
    writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def record(run: ComparedRun, comparison: Comparison) -> dict[str, Any]:
    """A run's values by the headings of the CSV file."""
    return {
        "method": run.method,
        "seed": run.seed,
        "target_loss": run.target_loss,
        "mean_loss": run.mean_loss,
        "worst_loss": run.worst_loss,
        **{f"loss/{domain}": run.losses[domain] for domain in comparison.domains},
        **{key: run.cost[key] for key in ("tokens", "flops", "seconds")},
        **{f"accuracy/{suite}": run.accuracies.get(suite, "") for suite in comparison.suites},
        "folder": run.folder,
    }


def as_json(comparison: Comparison) -> str:
    """All values of the tables, in full digits."""
    content = {
        "baseline": comparison.baseline.name,
        "target": comparison.target.value,
        "unseen": list(comparison.target.unseen),
        "domains": list(comparison.domains),
        "notes": list(comparison.notes),
        "gap": comparison.gap and _gap_as_json(comparison.gap),
        "methods": {method.name: _method_as_json(method) for method in comparison.methods},
    }
    return json.dumps(content, indent=1) + "\n"


def _gap_as_json(gap: Gap) -> dict[str, Any]:
    shares = {name: asdict(share) for name, share in gap.shares.items()}
    return {"oracle": gap.oracle, "ahead": _estimate(gap.ahead), "shares": shares}


def _method_as_json(method: Method) -> dict[str, Any]:
    paired, time = method.paired, method.time_to_target
    return {
        "label": method.label,
        "seeds": list(method.seeds),
        "folders": [str(run.folder) for run in method.runs],
        "target_loss": _estimate(method.target),
        "mean_loss": _estimate(method.mean),
        "worst_loss": _estimate(method.worst),
        "losses": _estimates(method.domains),
        "cost": _estimates(method.cost),
        "accuracy": _estimates(method.accuracies),
        "paired": paired
        and {
            "target_loss": _estimate(paired.target),
            "mean_loss": _estimate(paired.mean),
            "worst_loss": _estimate(paired.worst),
            "losses": _estimates(paired.domains),
            "verdict": paired.verdict,
            "p_holm": paired.p,
            "detectable": paired.detectable,
        },
        "to_baselines_end": time
        and {
            "tokens": _estimate(time.tokens),
            "seconds": _estimate(time.seconds),
            "reached": time.reached,
            "seeds": time.seeds,
        },
    }


def _estimates(values: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: _estimate(value) for name, value in values.items()}


def _estimate(value: Estimate | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {"mean": value.mean, "half_width": value.half, "values": list(value.values)}


def as_table(comparison: Comparison) -> Table:
    """The first table, for the screen: what is most asked."""
    from dograph.terminal.tables import screen_table

    names = headings(comparison)
    asked = ("verdict", "of the gap", "tokens, all stages")
    shown = [0, 2, 4, 5, *(place for place, name in enumerate(names) if name in asked)]
    table = screen_table("Comparison", *(names[column] for column in shown))
    for row in summary_rows(comparison):
        table.add_row(*(row[column] for column in shown))
    return table
