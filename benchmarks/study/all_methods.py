"""The page's table of all methods, and the settings by which they act within so short a run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchmarks.study.cases import (
    BASELINE,
    BEST_FIXED,
    CASES,
    COMPLETE,
    LABELS,
    METHODS,
    PACE,
    PACE_UNSEEN,
)
from benchmarks.study.cells import NONE, Results, cost_cells, difference_cell, share_cell, table


def all_methods(cases: Mapping[str, Results]) -> list[str]:
    """The table, the methods that it lacks, how laws fitted, and settings; none without a run."""
    complete = {name: cases[name] for name in COMPLETE if name in cases}
    ran = [name for name in LABELS if any(_has(case, name) for case in complete.values())]
    if not set(ran) - set(METHODS):
        return []
    absent = [
        f"{label} ({', '.join(lacking)})"
        for name, label in LABELS.items()
        if (lacking := [CASES[key].title for key in COMPLETE if not _expected(cases, key, name)])
    ]
    parts = ["All methods, less uniform, and what they cost:", _table(complete, ran)]
    parts += [f"Not run: {'; '.join(absent)}."] if absent else []
    return [*parts, *_fits(complete), settings()]


def _has(case: Results, name: str) -> bool:
    return name in case["methods"]


def _expected(cases: Mapping[str, Results], key: str, name: str) -> bool:
    """Whether a case has a method, or is not to have it: a best fixed mixture that is not known."""
    case = cases.get(key)
    return case is not None and (_has(case, name) or (name == BEST_FIXED and not case["gap"]))


def _table(cases: Mapping[str, Results], names: list[str]) -> str:
    """Rows by method; by case the difference to uniform and, with a gap, the share of it."""
    header = ["method"]
    for key, case in cases.items():
        header += [CASES[key].title, *(["share of the gap"] if case["gap"] else [])]
    lines = []
    for name in names:
        line = [LABELS[name]]
        for case in cases.values():
            line.append("0" if name == BASELINE else difference_cell(case, name))
            if case["gap"]:
                line.append(share_cell(case["methods"].get(name)))
        lines.append([*line, *cost_cells(cases.values(), name, ("tokens", "flops"))])
    return table([*header, "tokens", "FLOPs"], lines)


def _fits(cases: Mapping[str, Results]) -> list[str]:
    """A sentence on each law that was fitted to a swarm: its errors, the mean over seeds."""
    return [
        f"{LABELS[name]}'s law, {CASES[key].title}: {_nats(fit['error'])} nats off out of fold, "
        f"where losses spread by {_nats(fit['spread'])}; rank correlation {_nats(fit['rank'])}; "
        f"{fit['mixtures']} mixtures a seed, the mean over {fit['seeds']} seeds."
        for key, case in cases.items()
        for name, method in case["methods"].items()
        if (fit := method.get("fit"))
    ]


def _nats(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def settings() -> str:
    """What the methods have beside their recipes' settings."""
    lines = [f"- {LABELS[name]}: {_listed(given)}" for name, given in PACE.items()]
    lines += [
        f"- {LABELS[name]}, {CASES[COMPLETE[0]].title}: {_listed(given)}"
        for name, given in PACE_UNSEEN.items()
    ]
    return "\n".join(
        [
            "Recipes' numbers of steps are for 400 steps, and some published ones for many more. "
            "So that all methods act within these 800, they are scaled by the run's length "
            "(`benchmarks/study/cases.py` says how):",
            "",
            *lines,
        ]
    )


def _listed(given: tuple[str, ...]) -> str:
    """Settings without what all keys share, those of alike stages once."""
    short = (each.replace("mixer.init_args.", "") for each in given)
    alike = (re.sub(r"only_\w+", "only_…", each) for each in short)
    return ", ".join(f"`{each}`" for each in dict.fromkeys(alike))
