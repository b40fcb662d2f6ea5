"""Cells of the page's tables, and a table of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.study.cases import BASELINE, BEST_FIXED, LABELS, METHODS

NONE = "–"
MORE = LABELS.keys() - METHODS.keys()
"""Methods that only the table of all methods shows."""
Results = Mapping[str, Any]
"""A file of results."""


def table(header: list[str], lines: list[list[str]]) -> str:
    """Markdown, all but the first column aligned to the right."""
    rule = ["---", *(["--:"] * (len(header) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


def plus_minus(value: Results, signed: bool = False) -> str:
    """Mean ± half of the interval in nats."""
    mean = f"{value['mean']:{'+' if signed else ''}.3f}".replace("-", "−")
    half = value["half_width"]
    return mean if half is None else f"{mean} ± {half:.3f}"


def share_cell(method: Results | None) -> str:
    """A method's share of the gap, with its interval; marked where it loses to uniform."""
    if method is None or not method["share"]:
        return NONE
    share = method["share"]
    shown = f"{100 * share['mean']:.0f} %"
    if share["low"] is not None:
        shown += f" [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"
    return _marked(shown.replace("-", "−"), method)


def difference_cell(case: Results, name: str) -> str:
    """A method's paired difference to the case's baseline; marked where it is surely not zero."""
    if name == BEST_FIXED and name not in case["methods"] and case["gap"]:
        name = case["gap"]["oracle"]
    method = case["methods"].get(name)
    if method is None or not method["paired"]:
        return NONE
    fewer = method["paired"]["seeds"] < max(len(m["seeds"]) for m in case["methods"].values())
    count = f" (n = {method['paired']['seeds']})" if fewer else ""
    weak = "†" if _is_weak(method["paired"]) else ""
    return _marked(plus_minus(method["paired"], signed=True), method) + weak + count


def detectable_cell(case: Results) -> str:
    """The least and the largest of the methods' smallest detectable differences."""
    shown = [method for name, method in case["methods"].items() if name not in MORE]
    pairs = [method["paired"] for method in shown if method["paired"]]
    sizes = [pair["detectable"] for pair in pairs if pair["detectable"] is not None]
    ends = dict.fromkeys(f"{size:.3f}" for size in (min(sizes), max(sizes))) if sizes else [NONE]
    return " to ".join(ends)


def _is_weak(paired: Results) -> bool:
    """Whether a claim is of less than what four of five such studies would find."""
    claimed = paired["verdict"] in ("win", "loss")
    known = paired["detectable"]  # None where differences do not vary
    return claimed and known is not None and abs(paired["mean"]) < known


def _marked(text: str, method: Results) -> str:
    verdict = method["paired"]["verdict"] if method["paired"] else "tie"
    return {"win": f"**{text}**", "loss": f"*loss* {text}"}.get(verdict, text)


def cost_cells(cases: Iterable[Results], name: str, keys: Iterable[str]) -> list[str]:
    """A method's cost with all its stages over uniform's, the mean over the cases that have it."""
    both = [
        (case["methods"][name]["cost"], case["methods"][BASELINE]["cost"])
        for case in cases
        if name in case["methods"]
    ]
    return [
        f"{sum(own[key] / base[key] for own, base in both) / len(both):.2f}" if both else NONE
        for key in keys
    ]
