"""Shipped recipes as they are, corpus, model and all."""

import json
from pathlib import Path

import pytest

from dograph.cli.main import main

ROOT = Path(__file__).parent.parent.parent
RECIPES = (
    *("ado_gpt2", "aioli_gpt2", "doge_gpt2", "dograph_gpt2", "dograph_schedule_gpt2"),
    *("doremi_gpt2", "grape_gpt2", "regmix_gpt2", "skill_it_learnt_gpt2"),
)
"""One of each kind of signal and of stage, and what names the environment's domains.

Recipes differ in the mixer alone (`test_check.py`), and the matrix runs all of them, shrunk.
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_learns_on_the_environment_corpus(name, tmp_path):
    """Something, in 20 steps."""
    recipe = str(ROOT / "recipes" / f"{name}.yaml")
    short = ["trainer.max_steps=20", "data.validation_sequences=8"]
    few = ["stages.proxies.swarm.mixtures=4"] if name == "regmix_gpt2" else []
    assert main(["run", recipe, *short, f"runs={tmp_path}", *few]) == 0
    summary = json.loads((tmp_path / name / "seed_0" / "summary.json").read_text())
    assert len(summary["domains"]) >= 6
    losses = [domain["validation_loss"] for domain in summary["domains"].values()]
    assert all(loss < 8.2 for loss in losses)
