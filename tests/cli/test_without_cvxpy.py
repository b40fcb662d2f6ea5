"""Training without cvxpy and its solvers: PIQP solves every default problem."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HIDDEN = """\
import sys
from importlib.machinery import PathFinder

HIDDEN = {"cvxpy", "cvxpylayers", "diffcp", "scs", "clarabel", "osqp"}


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)


sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""
"""As if these packages were not installed."""


@pytest.mark.parametrize(
    ("mixer", "arguments"),
    [
        ("DoGraph", "{clusters: 4, anchor: 1, laplacian: 0.1, max_difference: 0.5}"),
        ("DoGraphSchedule", "{interval: 4, measure: 4, skip: 0}"),
    ],
)
def test_graph_mixers_train(small_recipe, mixer, arguments):
    recipe = small_recipe("run", f"dograph.mixers.{mixer}\n  init_args: {arguments}", steps=8)
    code = (
        f"{HIDDEN}\nimport dograph, json\nfor name in dograph.__all__: getattr(dograph, name)\n"
        f"from dograph.cli.main import main\nassert main(['run', {str(recipe)!r}]) == 0\n"
        "assert not {'cvxpy', 'cvxpylayers', 'diffcp', 'scs'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr, done.stderr  # a solve that falls back is logged
