"""UniMax against hand-computed cases, another way to its shares, and runs (Chung et al. 2023)."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.mixers import UniMax
from dograph.mixers.unimax import shared_budget

DOMAINS = ("books", "code", "web")


def shares(tokens, budget, max_epochs):
    return shared_budget(torch.tensor(tokens), budget, max_epochs).tolist()


@pytest.mark.parametrize(
    ("tokens", "budget", "max_epochs", "expected"),
    [
        ([100, 100, 100], 90, 1, [30, 30, 30]),  # no cap binds: stratified
        ([10, 100, 1000], 300, 1, [10, 100, 190]),  # 300/3 > 10; 290/2 > 100; the rest
        ([1000, 10, 100], 300, 2, [140, 20, 140]),  # 100 > 20; 280/2 is below 200
        ([10, 20, 30], 240, 4, [40, 80, 120]),  # every cap binds: by size
    ],
)
def test_shares_by_hand(tokens, budget, max_epochs, expected):
    assert shares(tokens, budget, max_epochs) == pytest.approx(expected)


def water_level(tokens, budget, max_epochs):
    """The same by bisection for the level ``c`` at which ``Σ_s min(c, N n_s)`` is the budget."""
    low, high = 0.0, float(budget)
    for _ in range(200):
        level = (low + high) / 2
        short = sum(min(level, max_epochs * each) for each in tokens) < budget
        low, high = (level, high) if short else (low, level)
    return [min(high, max_epochs * each) for each in tokens]


def test_shares_agree_with_the_water_level_on_random_inputs():
    draw = random.Random(0)
    for _ in range(250):
        tokens = [draw.randint(1, 10 ** draw.randint(1, 9)) for _ in range(draw.randint(1, 12))]
        max_epochs = draw.uniform(0.01, 20)
        budget = draw.uniform(0, 1) * max_epochs * sum(tokens)
        expected = water_level(tokens, budget, max_epochs)
        assert shares(tokens, budget, max_epochs) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), st.floats(0.01, 1), st.floats(1, 9))
@settings(max_examples=80, deadline=None)
def test_no_cap_is_broken_and_what_is_below_its_cap_is_even(tokens, part, max_epochs):
    budget = part * max_epochs * sum(tokens)
    found = shares(tokens, budget, max_epochs)
    assert sum(found) == pytest.approx(budget)
    caps = [max_epochs * each for each in tokens]
    assert all(share <= cap * (1 + 1e-9) for share, cap in zip(found, caps, strict=True))
    free = [share for share, cap in zip(found, caps, strict=True) if share < cap * (1 - 1e-9)]
    assert all(share == pytest.approx(max(found)) for share in free)


def test_unseen_domains_share_nothing():
    mixer = UniMax(max_epochs=2)
    mixer.setup(DOMAINS, (10, 100, 1000), 4, unseen=["web"], token_budget=60)
    assert mixer.weights.tolist() == pytest.approx([20 / 60, 40 / 60, 0])


def test_a_run_without_a_length_or_too_long_for_the_caps_is_refused():
    with pytest.raises(UserError, match=r"whose length is not known: set trainer\.max_steps"):
        UniMax().setup(DOMAINS, (10, 100, 1000), 4)
    said = r"max_epochs is 2, which lets a run read 220 tokens, but this run reads 221: raise it"
    with pytest.raises(UserError, match=said):
        UniMax(2).setup(DOMAINS, (10, 100, 1000), 4, unseen=["web"], token_budget=221)
    with pytest.raises(UserError, match="max_epochs"):
        UniMax(0)


def test_another_length_is_refused_at_a_resume():
    def mixer(budget):
        made = UniMax()
        made.setup(DOMAINS, (10, 100, 1000), 4, token_budget=budget)
        return made

    state = mixer(300).state_dict()
    mixer(300).load_state_dict(state)
    with pytest.raises(UserError, match=r"trainer\.max_steps for UniMax"):
        mixer(600).load_state_dict(state)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_keeps_to_the_caps_and_draws_the_rest_evenly(small_recipe, tmp_path, accumulate):
    path = small_recipe("small", "dograph.mixers.UniMax", steps=8 // accumulate)
    cap = 5 * 17  # tokens of 5 sequences, of 64 that the run reads
    more = [f"data.cap={{animals: {cap}}}", "mixer.init_args.max_epochs=2"]
    assert main(["run", str(path), *more, f"trainer.accumulate_grad_batches={accumulate}"]) == 0
    summary = json.loads((tmp_path / "runs" / "small" / "seed_0" / "summary.json").read_text())
    animals, *others = (summary["domains"][name] for name in ("animals", "code", "numbers"))
    assert animals["epochs"] == 2
    assert all(each["tokens"] == 27 * 16 for each in others)
