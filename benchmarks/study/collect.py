"""A case's finished runs, compared, as a file of results of a few KB."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.ablation import FOLDER, changes
from benchmarks.study.cases import BASELINE, BEST_FIXED, SCHEDULE, Case, methods_of
from benchmarks.study.runs import has_runs
from dograph.experiments.comparison.comparison import Comparison, compare
from dograph.experiments.comparison.gap import Gap, gap_of
from dograph.experiments.comparison.methods import Method
from dograph.experiments.comparison.tables import as_json
from dograph.files.atomic import read_json
from dograph.files.run_dir import FIT, OF_ORACLE, ORACLE

DIGITS = 6
"""Of every number in a file of results."""
HOST = "Runs differ in their "
"""Begin of a note on commits, versions and hosts, with the folders of each."""
CONDITIONS = {
    "data": ("context", "batch_size", "validation_sequences", "unseen", "cap"),
    "model": ("architecture", "config", "learning_rate"),
    "trainer": ("max_steps",),
}
"""What a file of results tells of the recipe, by section."""


def case_results(case: Case, runs: Path) -> dict[str, Any] | None:
    """The comparison of all methods with finished runs; None without the baseline's."""
    folders = [runs / case.name / method for method in methods_of(case)]
    oracles = sorted((runs / case.name).glob(f"*{OF_ORACLE}"))
    found = [folder for folder in [*folders, *oracles] if has_runs(folder)]
    if runs / case.name / BASELINE not in found:
        return None
    comparison = compare(found, BASELINE)
    gap = comparison.gap or gap_of(comparison.methods, BEST_FIXED)
    content = _content(case, comparison, gap)
    for method in comparison.methods:
        kept = content["methods"][method.name]
        kept["share"] = content["gap"] and content["gap"]["shares"].get(method.name)
        kept["weights"] = mean_weights(method)
        if fit := mean_fit(method):
            kept["fit"] = fit
    if gap is not None and (search := _search(runs / case.name / gap.oracle / ORACLE)):
        content["gap"]["search"] = search
    if content["gap"] is not None:
        del content["gap"]["shares"]
    return rounded(content)


def ablation_results(case: Case, runs: Path) -> dict[str, Any] | None:
    """The schedule against itself with one change each; None without runs of both."""
    home = runs / case.name
    tried = [folder for name in changes() if has_runs(folder := home / FOLDER / name)]
    if not tried or not has_runs(home / SCHEDULE):
        return None
    beside = [home / name for name in (SCHEDULE, BASELINE, BEST_FIXED) if has_runs(home / name)]
    content = _content(case, compare([*beside, *tried], SCHEDULE), None)
    for kept in content["methods"].values():
        for key in ("mean_loss", "worst_loss", "cost"):
            del kept[key]
    return rounded(content)


def mean_weights(method: Method) -> dict[str, float]:
    """Each domain's average weight in the last stage, the mean over seeds."""
    averages = [{d.name: d.average_weight for d in run.summary.domains} for run in method.runs]
    return {name: sum(each[name] for each in averages) / len(averages) for name in averages[0]}


def mean_fit(method: Method) -> dict[str, Any] | None:
    """How a law fitted a swarm's losses of the target, the mean over seeds; None without a law."""
    paths = [folder / FIT for run in method.runs for _, folder in run.stages]
    fits = [read_json(path) for path in paths if path.is_file()]
    if not fits:
        return None
    names = {"error": "out_of_fold_error", "spread": "losses_standard_deviation"}
    errors = [fit["errors"]["target"] for fit in fits]
    means = {
        short: sum(each[name] for each in errors) / len(errors)
        if all(each[name] is not None for each in errors)
        else None
        for short, name in {**names, "rank": "spearman"}.items()
    }
    return {**means, "mixtures": fits[0]["mixtures"], "seeds": len(fits)}


def rounded(value: Any) -> Any:
    """JSON values with ``DIGITS`` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def _content(case: Case, comparison: Comparison, gap: Gap | None) -> dict[str, Any]:
    """The comparison's own JSON, without what a page does not need, and its conditions."""
    whole = json.loads(as_json(comparison))
    shares = {name: vars(share) for name, share in gap.shares.items()} if gap else {}
    ahead = gap and {
        "oracle": gap.oracle,
        "mean": gap.ahead.mean,
        "half_width": gap.ahead.half,
        "shares": shares,
    }
    more = [gap.note] if gap and gap.note and not comparison.gap else []
    first = comparison.baseline.runs[0]
    return {
        "case": case.name,
        "target": whole["target"],
        "conditions": {
            section: {key: first.recipe[section][key] for key in keys if key in given}
            for section, keys in CONDITIONS.items()
            if (given := first.recipe.get(section) or {})
        },
        "tokens": first.summary.tokens,
        "notes": notes(comparison.notes + tuple(more), first.folder.parent.parent),
        "gap": ahead,
        "methods": {name: _method(each) for name, each in whole["methods"].items()},
    }


def _method(whole: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a method in the comparison's JSON."""
    paired = whole["paired"]
    return {
        "seeds": whole["seeds"],
        "target_loss": whole["target_loss"],
        **{key: _without_values(whole[key]) for key in ("mean_loss", "worst_loss")},
        "paired": paired
        and {
            **_without_values(paired["target_loss"]),
            "seeds": len(paired["target_loss"]["values"]),
            "verdict": paired["verdict"],
            "p_holm": paired["p_holm"],
            "detectable": paired["detectable"],
        },
        "cost": {key: value["mean"] for key, value in whole["cost"].items()},
    }


def _without_values(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {key: estimate[key] for key in ("mean", "half_width")}


def notes(whole: Sequence[str], folder: Path) -> list[str]:
    """A comparison's notes, with the places of runs below the case's folder; hosts in one note."""
    hosts = [note for note in whole if note.startswith(HOST)]
    kept = [note.replace(f"{folder}/", "") for note in whole if note not in hosts]
    if hosts:
        kinds = ", ".join(note.removeprefix(HOST).partition(":")[0] for note in hosts)
        kept.append(f"{HOST}{kinds}, which changes rounding and seconds.")
    return kept


def _search(path: Path) -> dict[str, Any] | None:
    """Cost of an oracle's search and validation; None without a file."""
    content = read_json(path) if path.is_file() else None
    return content and content.get("cost")
