"""What a plan imports: no library that only training, fits or reports need."""

import subprocess
import sys
from pathlib import Path

RECIPES = Path(__file__).parent.parent.parent / "recipes"
HEAVY = {"sklearn", "pandas", "cvxpy", "cvxpylayers", "datasets", "lm_eval"}


def test_a_plan_imports_no_library_of_fits_and_reports():
    """One process for a run, a swarm with its law, and a problem that is solved."""
    recipes = [str(RECIPES / f"{name}_gpt2.yaml") for name in ("regmix", "dograph_schedule")]
    code = (
        "import sys; from dograph.cli.main import main\n"
        f"for recipe in {recipes}: assert main(['plan', recipe]) == 0\n"
        f"assert not (there := {HEAVY} & set(sys.modules)), there"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
