"""The generated part of ``docs/results.md``, from the files below ``docs/results``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.study.ablation import changes
from benchmarks.study.cases import BASELINE, BEST_FIXED, CASES, METHODS, ROOT, SCHEDULE
from dograph.experiments.oracle.result import described
from dograph.files.atomic import read_json

RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- python -m benchmarks.study --page: begin -->\n", "<!-- end -->\n"
ABLATION = "ablation"
FEWEST_SEEDS = 5
"""For a claim."""
NONE = "–"
LEGEND = """\
Losses in nats a token of the target, mean ± half of the 95 % interval over seeds. Differences are
paired by seed, below zero is better; **bold** is a win and *loss* a loss with p < 0.05 (paired
t-test, adjusted by Holm for all methods of a case). A share is a method's mean gain over uniform,
divided by the best fixed mixture's, with the 95 % interval of a bootstrap over seeds; there is none
where the best fixed mixture is not surely ahead. n: seeds, where some have more. –: not run.
Detectable: the smallest true difference that four of five such studies would find, by the spread of
the paired differences, from the surest method to the least sure; † is a claim below its method's,
so likely overstated. The cases link files with all numbers."""
Results = Mapping[str, Any]
"""A file of results."""


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
        parts += missing(cases)
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


def table(header: list[str], lines: list[list[str]]) -> str:
    """Markdown, all but the first column aligned to the right."""
    rule = ["---", *(["--:"] * (len(header) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


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
        both = [
            (case["methods"][name]["cost"], case["methods"][BASELINE]["cost"])
            for case in cases.values()
            if name in case["methods"]
        ]
        keys = ("tokens", "flops", "seconds")
        means = [
            sum(own[key] / base[key] for own, base in both) / len(both) for key in keys if both
        ]
        cells = [f"{mean:.2f}" for mean in means] or [NONE] * len(keys)
        lines.append([METHODS[name], *cells, str(len(both))])
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
        seeds = {METHODS.get(key, key): len(each["seeds"]) for key, each in case["methods"].items()}
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
    pairs = [method["paired"] for method in case["methods"].values() if method["paired"]]
    sizes = [pair["detectable"] for pair in pairs if pair["detectable"] is not None]
    ends = dict.fromkeys(f"{size:.3f}" for size in (min(sizes), max(sizes))) if sizes else [NONE]
    return " to ".join(ends)


def _is_weak(paired: Results) -> bool:
    """Whether a claim is of less than what four of five such studies would find."""
    claimed = paired["verdict"] in ("win", "loss")
    return claimed and abs(paired["mean"]) < paired["detectable"]


def _marked(text: str, method: Results) -> str:
    verdict = method["paired"]["verdict"] if method["paired"] else "tie"
    return {"win": f"**{text}**", "loss": f"*loss* {text}"}.get(verdict, text)


def write_page(path: Path = PAGE) -> None:
    """Write the generated part of the page."""
    path.write_text(page_with_results(path.read_text(encoding="utf-8")), encoding="utf-8")
