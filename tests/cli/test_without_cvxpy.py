"""What a run imports, and training without cvxpy and its solvers: PIQP solves every default."""

import subprocess
import sys
from pathlib import Path

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


def test_a_run_imports_no_solver_and_graph_mixers_need_no_cvxpy(small_recipe):
    """One process for all: starting takes longer than the runs."""
    arguments = {
        "DoGraph": "{clusters: 4, anchor: 1, laplacian: 0.1, max_difference: 0.5}",
        "DoGraphSchedule": "{interval: 4, measure: 4, skip: 0}",
    }
    plain = small_recipe("plain", steps=1)
    graphs = [
        str(small_recipe(mixer, f"dograph.mixers.{mixer}\n  init_args: {given}", steps=8))
        for mixer, given in arguments.items()
    ]
    code = (
        "import gc, sys; from dograph.cli.main import main\n"
        f"assert main(['run', {str(plain)!r}]) == 0\n"
        "assert not {'sklearn', 'cvxpy', 'cvxpylayers', 'datasets'} & set(sys.modules)\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 100_000\n"
        f"{HIDDEN}\nimport dograph\nfor name in dograph.__all__: getattr(dograph, name)\n"
        f"for recipe in {graphs}: assert main(['run', recipe]) == 0\n"
        "assert not {'cvxpy', 'cvxpylayers', 'diffcp', 'scs'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr, done.stderr  # a solve that falls back is logged
