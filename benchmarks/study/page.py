"""The generated part of ``docs/results.md``, from the files below ``docs/results``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.study.ablation import changes
from benchmarks.study.all_methods import all_methods
from benchmarks.study.cases import BASELINE, BEST_FIXED, CASES, LABELS, METHODS, ROOT, SCHEDULE
from benchmarks.study.cells import (
    NONE,
    Results,
    cost_cells,
    detectable_cell,
    difference_cell,
    plus_minus,
    share_cell,
    table,
)
from dograph.experiments.oracle.result import described
from dograph.files.atomic import read_json

RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- python -m benchmarks.study --page: begin -->\n", "<!-- end -->\n"
ABLATION = "ablation"
FEWEST_SEEDS = 5
"""For a claim."""
LEGEND = """\
Losses in nats a token of the target, mean ± half of the 95 % interval over seeds. Differences are
paired by seed, below zero is better; **bold** is a win and *loss* a loss with p < 0.05 (paired
t-test, adjusted by Holm for all methods of a case). A share is a method's mean gain over uniform,
divided by the best fixed mixture's, with the 95 % interval of a bootstrap over seeds; there is none
where the best fixed mixture is not surely ahead. n: seeds, where some have more. –: not run.
Detectable: the smallest true difference that four of five such studies would find, by the spread of
the paired differences, from the surest method to the least sure; † is a claim below its method's,
so likely overstated. The cases link files with all numbers."""


def scales() -> list[str]:
    """Sizes with files of results, the known ones first."""
    order = ("pico", "nano", "micro")
    names = [folder.name for folder in RESULTS.glob("*") if any(folder.glob("*.json"))]
    return sorted(names, key=lambda name: (name not in order, *map(name.__ne__, order), name))


def read_cases(scale: str) -> dict[str, Results]:
    """The files of results of one size, by case."""
    paths = {name: RESULTS / scale / f"{name}.json" for name in CASES}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def page_with_results(page: str) -> str:
    """The page with its generated part written anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no place for the study: {BEGIN.strip()} … {END.strip()}")
    parts = [part for scale in scales() for part in _scale(scale)]
    body = "\n\n".join(parts or ["No study has been run yet."])
    return f"{before}{BEGIN}\n{body}\n\n{END}{after}"


def _scale(scale: str) -> list[str]:
    cases, path = read_cases(scale), RESULTS / scale / f"{ABLATION}.json"
    parts = []
    if cases:
        parts += [f"### {scale.capitalize()}", _setting(cases), shares_table(scale, cases), LEGEND]
        parts += ["Difference to uniform:", differences_table(cases)]
        parts += ["Average weights:", weights_table(cases), "Cost:", cost_table(cases)]
        parts += [*all_methods(cases), *missing(cases)]
    if path.is_file():
        parts += [f"### Ablation, {scale}", ablation_table(read_json(path))]
    return parts


def _setting(cases: Mapping[str, Results]) -> str:
    """Model, batches and tokens; all cases of a size share them but for the domains."""
    first = next(iter(cases.values()))
    data, model = first["conditions"]["data"], first["conditions"]["model"]
    config = ", ".join(f"{key} {value}" for key, value in (model.get("config") or {}).items())
    steps = first["conditions"]["trainer"]["max_steps"]
    return (
        f"{model['architecture']} ({config}), {steps:,} steps of {data['batch_size']} × "
        f"{data['context']} tokens: {first['tokens'] / 1e6:.2f} M."
    )


def shares_table(scale: str, cases: Mapping[str, Results]) -> str:
    """Uniform's loss, how far the best fixed mixture is ahead, and each method's share."""
    others = _columns(cases, BASELINE, BEST_FIXED)
    header = ["case", "seeds", "uniform", "best fixed ahead by", *map(METHODS.__getitem__, others)]
    lines = []
    for name, case in cases.items():
        base, gap = case["methods"][BASELINE], case["gap"]
        lines.append(
            [
                f"[{CASES[name].title}](results/{scale}/{name}.json)",
                str(len(base["seeds"])),
                plus_minus(base["target_loss"]),
                plus_minus(gap) if gap else NONE,
                *(share_cell(case["methods"].get(other)) for other in others),
            ]
        )
    return table(header, lines)


def differences_table(cases: Mapping[str, Results]) -> str:
    """Each method's loss of the target less uniform's, and what differences could be seen."""
    others = _columns(cases, BASELINE)
    lines = [
        [
            CASES[name].title,
            *(difference_cell(case, other) for other in others),
            detectable_cell(case),
        ]
        for name, case in cases.items()
    ]
    return table(["case", *map(METHODS.__getitem__, others), "detectable"], lines)


def weights_table(cases: Mapping[str, Results]) -> str:
    """The best fixed mixture, and the schedule's weights."""
    lines = []
    for name, case in cases.items():
        methods = case["methods"]
        best = methods.get(case["gap"]["oracle"] if case["gap"] else BEST_FIXED)
        found = [each and described(each["weights"]) for each in (best, methods.get(SCHEDULE))]
        lines.append([CASES[name].title, *(text or NONE for text in found)])
    return table(["case", METHODS[BEST_FIXED], METHODS[SCHEDULE]], lines)


def cost_table(cases: Mapping[str, Results]) -> str:
    """Each method's cost with all its stages over uniform's, the mean over cases."""
    lines = []
    for name in _columns(cases):
        count = sum(name in case["methods"] for case in cases.values())
        cells = cost_cells(cases.values(), name, ("tokens", "flops", "seconds"))
        lines.append([METHODS[name], *cells, str(count)])
    costs = table(["of all stages, over uniform's", "tokens", "FLOPs", "seconds", "cases"], lines)
    return "\n\n".join([costs, *_searches(cases)])


def _searches(cases: Mapping[str, Results]) -> list[str]:
    """A sentence on the runs that the best fixed mixtures took, which no method's cost counts."""
    gaps = [case["gap"] for case in cases.values() if case["gap"]]
    costs = [gap["search"]["search"]["runs"] for gap in gaps if gap.get("search")]
    if not costs:
        return []
    return [f"The best fixed mixtures of {len(costs)} cases were searched in {sum(costs)} runs."]


def missing(cases: Mapping[str, Results]) -> list[str]:
    """The cases that were not run, or with too few seeds for a claim."""
    absent = [CASES[name].title for name in CASES if name not in cases]
    sentences = [f"Not run: {'; '.join(absent)}."] if absent else []
    for name, case in cases.items():
        seeds = {LABELS.get(key, key): len(each["seeds"]) for key, each in case["methods"].items()}
        few = [f"{label} {count}" for label, count in seeds.items() if count < FEWEST_SEEDS]
        if few:
            sentences.append(f"{CASES[name].title}: too few seeds for a claim: {', '.join(few)}.")
    return ["Missing:", "\n".join(f"- {each}" for each in sentences)] if sentences else []


def _columns(cases: Mapping[str, Results], *without: str) -> list[str]:
    """The methods that any case has."""
    run = [name for name in METHODS if any(_has(case, name) for case in cases.values())]
    return [name for name in run if name not in without]


def _has(case: Results, method: str) -> bool:
    """Whether a case has a method; an oracle is a best fixed mixture."""
    return method in case["methods"] or (method == BEST_FIXED and bool(case["gap"]))


def ablation_table(cases: Mapping[str, Results]) -> str:
    """One row a change: the schedule's loss with it, less its loss with the defaults."""
    header = ["change", *(CASES[name].title for name in cases)]
    base = ["defaults: loss", *(_loss(case["methods"][SCHEDULE]) for case in cases.values())]
    rows = [BASELINE, BEST_FIXED, *changes()]
    lines = [
        [
            METHODS.get(row, row.replace("_", " ")),
            *(difference_cell(c, row) for c in cases.values()),
        ]
        for row in rows
        if any(row in case["methods"] for case in cases.values())
    ]
    return "\n\n".join(
        [
            "The target's loss with one setting of the schedule changed, less that with the "
            "defaults, paired by seed.",
            table(header, [base, *lines]),
        ]
    )


def _loss(method: Results) -> str:
    return plus_minus(method["target_loss"])


def write_page(path: Path = PAGE) -> None:
    """Write the generated part of the page."""
    path.write_text(page_with_results(path.read_text(encoding="utf-8")), encoding="utf-8")
