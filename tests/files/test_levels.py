"""Levels of names: who is below whom, and how a level's weight is shared out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.files.levels import by_top_level, check_levels, levels_of, members, split_levels
from dograph.mixers.limits import Limits
from dograph.mixers.simplex import weights_by_name
from dograph.mixers.target import Target

DOMAINS = ("books", "code/c/headers", "code/c/source", "code/python", "web/news", "web/wiki")
TOKENS = (5, 1, 3, 4, 10, 30)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        min_size=1,
        unique=True,
    ),
    st.data(),
)
def test_level_weights_sum(names, data):
    domains = sorted(set(names) - set(levels_of(names)))
    tokens = [data.draw(st.integers(1, 10**9)) for _ in domains]
    tops = list(dict.fromkeys(name.partition("/")[0] for name in domains))
    weights = {top: data.draw(st.floats(0.01, 10)) for top in tops}
    shared = weights_by_name(weights, domains, "weights", (), tokens)
    total = math.fsum(weights.values())
    for top in tops:
        below = [domains.index(name) for name in members(top, domains)]
        assert math.isclose(shared[below].sum().item(), weights[top] / total, rel_tol=1e-9)
        size = torch.tensor([tokens[index] for index in below], dtype=torch.float64)
        assert torch.allclose(shared[below] / shared[below].sum(), size / size.sum())


def test_deeper_levels_and_domains_mix_and_unseen_ones_get_nothing():
    weights = {"code/c": 0.4, "code/python": 0.1, "web": 0.3, "books": 0.2}
    shared = weights_by_name(weights, DOMAINS, "weights", ("web/wiki",), TOKENS)
    assert shared.tolist() == pytest.approx([0.2, 0.1, 0.3, 0.1, 0.3, 0.0])


def test_names_that_overlap_or_are_unknown_are_refused():
    with pytest.raises(UserError, match="names web/news twice"):
        weights_by_name({"web": 1, "web/news": 1, "code": 1, "books": 1}, DOMAINS, "weights")
    with pytest.raises(UserError, match=r"unknown \['wb'\], missing \['web/news', 'web/wiki'\]"):
        weights_by_name({"wb": 1, "code": 1, "books": 1}, DOMAINS, "weights")
    with pytest.raises(UserError, match="web is a domain and a level above web/news"):
        check_levels(["web", "web/news"], "here")
    check_levels(["web", "web2/news"], "here")


def test_what_is_below():
    assert members("code/c", DOMAINS) == ("code/c/headers", "code/c/source")
    assert by_top_level(DOMAINS) == {"code": [1, 2, 3], "web": [4, 5]}
    assert split_levels({"web": 1.0}, DOMAINS, None, "target") == {"web/news": 0.5, "web/wiki": 0.5}


def test_limits_by_level_hold_their_sum():
    limits = Limits(at_least={"code": 0.6}, at_most={"web": 0.1}, epochs={"code/c": 2})
    limits.check(DOMAINS)
    run = limits.of_run(DOMAINS, [True] * 6, TOKENS, 40)
    even = torch.full((6,), 1 / 6, dtype=torch.float64)
    drawn = run.nearest(even, run.polytope())
    assert drawn[1:4].sum() >= 0.6 - 1e-8 and drawn[4:].sum() <= 0.1 + 1e-8
    assert drawn[1:3].sum() <= 2 * 4 / 40 + 1e-8
    grouped = Limits(at_least={"text": 0.9}, groups={"text": ["web", "books"]})
    grouped.check(DOMAINS)
    assert grouped.bounds(DOMAINS)[0].row.tolist() == [1, 0, 0, 0, 1, 1]
    with pytest.raises(UserError, match="has the name of a level"):
        Limits(at_least={"web": 0.1}, groups={"web": ["books"]}).check(DOMAINS)
    with pytest.raises(UserError, match="asks for web, which is never drawn"):
        Limits(at_least={"web": 0.1}).check(DOMAINS, unseen=["web/news", "web/wiki"])


def test_a_target_by_level_is_the_mean_below_it():
    losses = {name: float(number) for number, name in enumerate(DOMAINS)}
    target = Target.parse({"web": 3, "books": 1})
    target.check(DOMAINS)
    assert target.loss(losses) == pytest.approx(0.75 * 4.5)
    assert target.weights(DOMAINS).tolist() == [0.25, 0, 0, 0, 0.375, 0.375]
    assert target.names(DOMAINS) == ("books", "web/news", "web/wiki")
    assert target.label == "books 0.25, web 0.75"
    with pytest.raises(UserError, match=r"target names 'wbe'.*did you mean 'web'"):
        Target.parse("wbe").check(DOMAINS)
