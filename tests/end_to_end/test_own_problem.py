"""A problem of one's own, in a file outside the package, by a recipe."""

import json
import sys
from pathlib import Path

import pytest
from test_run import small

from dograph.cli.main import main

ROOT = Path(__file__).parent.parent.parent
PROBLEM = '''
import cvxpy as cp

from dograph import CvxpyProblem


class EntropyFloor(CvxpyProblem):
    """As much influence as possible, drawn from many sources."""

    def __init__(self, least: float = 1.0):
        self.least = least

    def problem(self, w, given):
        return -given.influence @ w, [cp.sum(cp.entr(w)) >= self.least]
'''


@pytest.mark.parametrize("recipe", ["dograph_schedule_gpt2", "dograph_gpt2"])
def test_a_problem_of_ones_own_runs_by_its_import_path(
    store, corpus_settings, tmp_path, monkeypatch, recipe
):
    """In both mixers that solve one; the published one is given a kernel's root."""
    text = (
        PROBLEM
        if "schedule" in recipe
        else PROBLEM.replace("-given.influence @ w", "cp.sum_squares(given.root @ w)")
    )
    (tmp_path / "my_problems.py").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    own = "mixer.init_args.solver={class_path: my_problems.EntropyFloor, init_args: {least: 0.9}}"
    limits = "limits={at_most: {code: 0.3}}"
    overrides = small(corpus_settings, tmp_path / "runs", own, limits, "target=code")
    path = str(ROOT / "recipes" / f"{recipe}.yaml")
    assert main(["run", path, *overrides, "--mixers", str(tmp_path)]) == 0
    del sys.modules["my_problems"]
    folder = tmp_path / "runs" / recipe / "seed_0"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["weights"]["last"]["code"] <= 0.3 + 1e-6
    assert "failed" not in str(summary["finding"])
