"""Run the study of mixtures, compare it case by case, and write the page of results.

python -m benchmarks.study --processes 2 --threads 1                   # the environment's cases
python -m benchmarks.study --corpus FOLDER --oracle                    # all cases, with oracles
python -m benchmarks.study --cases unseen_type_stubs --seeds 2 --ablation
python -m benchmarks.study --runs FOLDER --no-run                      # finished runs as they are
python -m benchmarks.study --page                                      # docs/results.md

Runs lie in RUNS/CASE/METHOD/seed_N, those of the ablation in RUNS/CASE/ablation/CHANGE/seed_N.
Finished ones are kept, wherever they were made: of a run, summary.json, recipe.yaml and
provenance.json are enough. Results of each case go to docs/results/SIZE/CASE.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.study import page
from benchmarks.study.cases import ABLATED, CASES, LABELS, TRAINERS, Case, methods_of
from benchmarks.study.collect import ablation_results, case_results
from benchmarks.study.runs import Runs
from dograph.errors import UserError

FIXED = "best_fixed.yaml"
"""File of the fixed mixtures' weights by case, beside the results."""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        "python -m benchmarks.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--cases", nargs="+", choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    add("--methods", nargs="+", choices=list(LABELS), metavar="METHOD", help=", ".join(LABELS))
    add("--seeds", type=int, default=5, metavar="N", help="0 to N − 1 (5)")
    add("--model", default="gpt2_pico", help="configuration of the model (gpt2_pico)")
    add("--trainer", help="configuration of the trainer; else the size's")
    add("--set", nargs="+", default=[], metavar="key=value", help="overrides of all runs")
    add("--corpus", type=Path, metavar="FOLDER", help="the second corpus")
    add("--fixed", type=Path, metavar="FILE", help="YAML: weights of fixed mixtures by case")
    add("--runs", type=Path, metavar="FOLDER", help="of all runs (runs/study_SIZE)")
    add("--processes", type=int, default=1, metavar="N", help="runs at once")
    add("--threads", type=int, metavar="N", help="of each run; else the cores are shared out")
    add("--oracle", action="store_true", help="search each case's best fixed mixture, too")
    add("--ablation", action="store_true", help=f"of the schedule, on {', '.join(ABLATED)}")
    add("--no-run", action="store_true", help="compare what is finished")
    add("--page", action="store_true", help="write docs/results.md alone, from the results")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Run, compare and write; 1 if a run failed or cases' runs do not compare."""
    arguments = parser().parse_args(words)
    if arguments.page:
        page.write_page()
        return 0
    size = arguments.model.removeprefix("gpt2_")
    results = page.RESULTS / size
    runs, mistakes = _runs(arguments, size, results), list[str]()
    for case in _cases(arguments, runs):
        runs.console.rule(case.title, align="left")
        try:
            _study(case, runs, results, arguments)
        except UserError as error:
            mistakes.append(f"{case.name}: {error}")
    mistakes += [f"{each.log}: {each.reason}\n{each.last_lines()}" for each in runs.failures]
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return 1 if mistakes else 0


def _runs(arguments: argparse.Namespace, size: str, results: Path) -> Runs:
    trainer = arguments.trainer or TRAINERS.get(size)
    if trainer is None:
        raise UserError(f"command line: --model is {arguments.model}: name its --trainer, too")
    given = arguments.fixed or results / FIXED
    fixed = (
        yaml.safe_load(given.read_text(encoding="utf-8"))
        if arguments.fixed or given.is_file()
        else {}
    )
    composed = (f"compose.model={arguments.model}", f"compose.trainer={trainer}")
    return Runs(
        folder=arguments.runs or Path("runs", f"study_{size}"),
        overrides=(*composed, *arguments.set),
        seeds=range(arguments.seeds),
        processes=arguments.processes,
        threads=arguments.threads,
        corpus=arguments.corpus,
        fixed=fixed,
    )


def _cases(arguments: argparse.Namespace, runs: Runs) -> list[Case]:
    """The named cases, or those of the ablation, or all whose corpus is there."""
    named = arguments.cases or (ABLATED if arguments.ablation else None)
    if named:
        return [CASES[name] for name in named]
    return [case for case in CASES.values() if arguments.no_run or runs.can_run(case)]


def _study(case: Case, runs: Runs, results: Path, arguments: argparse.Namespace) -> None:
    """Run what is missing of a case, and write its results, or those of its ablation."""
    if arguments.ablation:
        if not arguments.no_run:
            runs.run_ablation(case)
        _write_ablation(case, runs.folder, results)
        return
    if not arguments.no_run:
        runs.run(case, arguments.methods or methods_of(case))
        if arguments.oracle:
            runs.run_oracle(case)
    content = case_results(case, runs.folder)
    if content is not None:
        _write(results / f"{case.name}.json", content)


def _write_ablation(case: Case, runs: Path, results: Path) -> None:
    """Put a case into the file of the ablation, beside the cases that are in it."""
    path = results / f"{page.ABLATION}.json"
    content = ablation_results(case, runs)
    if content is not None:
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        _write(path, {**before, case.name: content})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    lists = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    path.write_text(lists + "\n", encoding="utf-8")
    print(f"Wrote {path}")


if __name__ == "__main__":
    raise SystemExit(main())
