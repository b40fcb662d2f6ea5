"""Both backends solve the problems of all recipes alike, with limits and without."""

from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dograph.experiments.recipe.classes import import_mixer
from dograph.mixers.dry_run import made_up_signals
from dograph.mixers.limits import Limits

DOMAINS = tuple("abcdefg")
BATCH, STEPS, SEQUENCES = 24, 5, 300
LIMITS = Limits(
    epochs={"a": 1.0, "bc": 0.5},
    at_least={"d": 0.2},
    at_most={"e": 0.1, "fg": 0.25},
    groups={"bc": ["b", "c"], "fg": ["f", "g"]},
    ratio={"f": {"g": [0.5, 2]}},
)


def solving_recipes():
    """(recipe, mixer's class and arguments) of every run whose mixer solves a problem."""
    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        for part in (content, *content.get("stages", {}).values()):
            mixer = part.get("mixer")
            if mixer and "solver" in signature(import_mixer(mixer["class_path"], "")).parameters:
                yield pytest.param(mixer, id=path.stem)


def set_up(mixer, solver, limits):
    """A recipe's mixer with a backend, over seven domains of random text."""
    given = {**mixer.get("init_args", {}), "solver": solver}
    if mixer["class_path"].endswith("Schedule"):
        given |= {"interval": 1}
    built = import_mixer(mixer["class_path"], "")(**given)
    run = SEQUENCES * len(DOMAINS)
    counts, drawn = [SEQUENCES] * len(DOMAINS), [True] * len(DOMAINS)
    draw = torch.Generator().manual_seed(0)
    text = [torch.randint(50, (20, 9), generator=draw) % (5 + 6 * n) for n in range(len(DOMAINS))]
    within = limits.of_run(DOMAINS, drawn, counts, run) if limits else None
    target = {"a": 0.5, "e": 0.3, "f": 0.2}
    tokens, budget = [9 * count for count in counts], 9 * run
    built.setup(DOMAINS, tokens, BATCH, 50, target, (), text, budget, limits=within)
    return built


@pytest.mark.parametrize("limits", [None, LIMITS], ids=["free", "limited"])
@pytest.mark.parametrize("mixer", solving_recipes())
def test_both_backends_give_the_same_weights(mixer, limits):
    first, second = (set_up(mixer, solver, limits) for solver in ("piqp", "cvxpylayers"))
    draw = np.random.default_rng(0)
    for step in range(STEPS):
        signals = made_up_signals(first, BATCH, step)
        drawn = draw.dirichlet(np.ones(len(DOMAINS))) * BATCH * step
        signals.drawn_before = torch.from_numpy(drawn)
        pairs = [
            (each.checked_loss_weights(signals), each.step(signals)) for each in (first, second)
        ]
        torch.testing.assert_close(pairs[0][0], pairs[1][0], rtol=0, atol=1e-6)
        torch.testing.assert_close(first.weights, second.weights, rtol=0, atol=1e-6)
        for each in (first, second):
            assert each.solution is None or each.solution.ok
        assert first.prices == pytest.approx(second.prices, abs=1e-4)
    assert any(price > 0 for price in first.prices.values()) == (limits is not None)
