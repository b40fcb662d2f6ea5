"""Limits on what is drawn: kept by every mixer, refused where no mixture keeps them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_absent_domains import DOMAINS, EVEN, MIXERS

from dograph.data.sampler import MixtureSampler
from dograph.errors import UserError
from dograph.experiments.mixer_list import shipped_mixers
from dograph.graph.bounds import Bound, conflict
from dograph.graph.polytope import Polytope
from dograph.mixers import GRAPE, ODM, Aioli, ByLevel, DoGraphSchedule, Phase, Phases, Stratified
from dograph.mixers.dry_run import made_up_signals
from dograph.mixers.limits import Limits

BATCH, LOOKAHEAD, STEPS = 12, 3, 40
ALL = {
    **MIXERS,
    "grape": lambda: GRAPE(update_every=2),
    "aioli": lambda: Aioli(sweeps=1, probe_steps=2, round_steps=16),
    "by_level": lambda: ByLevel(ODM(warmup=0)),
    "schedule_text": lambda: DoGraphSchedule(interval=2),
    "phases": lambda: Phases(
        [Phase(0, {"a": 1}), Phase(0.2), Phase(0.6, {"b": 3, "c": 1}, ramp=0.2), Phase(0.9, EVEN)],
        ODM(warmup=0),
    ),
}


def test_every_mixer_is_among_these():
    assert {type(make()) for make in ALL.values()} == set(shipped_mixers())


def random_limits(draw, inside, sequences):
    """Limits that the mixture ``inside`` keeps from the start to the end of the run."""
    shares = dict(zip(DOMAINS, inside, strict=True))
    names = [name for name in DOMAINS if draw.random() < 0.5]
    epochs = {
        name: float(shares[name] * STEPS * BATCH / sequences[name] * (1 + draw.random()))
        for name in names
    }
    group = sum(shares[name] for name in ("a", "b"))
    return Limits(
        epochs=epochs or None,
        at_least={"c": float(shares["c"] * draw.random()), "ab": float(group * draw.random())},
        at_most={"ab": float(min(1, group * (1 + draw.random()))), "d": float(shares["d"])},
        groups={"ab": ["a", "b"]},
        ratio={"a": {"b": [0, float(2 * shares["a"] / shares["b"])]}},
        projection=("kl", "euclidean")[int(draw.integers(2))],
    )


@given(st.integers(0, 2**31), st.sampled_from(sorted(ALL)))
@settings(max_examples=60, deadline=None)
def test_every_mixer_keeps_feasible_limits(seed, kind):
    draw = np.random.default_rng(seed)
    inside = draw.dirichlet(np.full(4, 3.0))
    counts = [int(draw.integers(150, 600)) for _ in DOMAINS]
    sequences = dict(zip(DOMAINS, counts, strict=True))
    given_limits = random_limits(draw, inside, sequences)
    run = given_limits.of_run(DOMAINS, [True] * 4, counts, STEPS * BATCH)
    mixer = ALL[kind]()
    text = [torch.randint(50, (20, 9)) for _ in DOMAINS]
    tokens = [9 * count for count in counts]
    budget = STEPS * BATCH * 9
    mixer.setup(DOMAINS, tokens, BATCH, 50, None, (), text, budget, LOOKAHEAD, run)
    sampler = MixtureSampler(
        [[count] for count in counts],
        mixer.sampling_weights.numpy(),
        BATCH,
        0,
        "stratified",
        LOOKAHEAD,
    )
    batches, shares = iter(sampler), Polytope.of(run.shares, run.drawn)
    for step in range(STEPS):
        next(batches)
        sampler.mark_trained()
        assert shares.violation(sampler.weights) <= 1e-6
        signals = made_up_signals(mixer, BATCH, step)
        signals.drawn_before = torch.from_numpy(sampler.drawn_before())
        if mixer.step(signals):
            sampler.set_weights(mixer.sampling_weights.numpy())
        _check(given_limits, sampler.realised, run, sequences)


def _check(limits, drawn, run, sequences):
    """What is drawn up to a batch keeps to all limits, within one sequence a domain."""
    total = drawn.sum()
    by_name = dict(zip(DOMAINS, drawn.tolist(), strict=True))
    for name, epochs in (limits.epochs or {}).items():
        assert by_name[name] <= epochs * sequences[name] + 1
    for bound in run.shares:
        slack = np.abs(bound.row).sum() + 1e-6
        assert bound.row @ drawn <= (bound.high and bound.high * total) + slack
        assert bound.row @ drawn >= (bound.low and bound.low * total) - slack


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_limits_that_conflict_are_refused_by_a_set_that_conflicts_by_itself(seed):
    draw = np.random.default_rng(seed)

    def shares(chance, least, most):
        named = [name for name in (*DOMAINS, "ab") if draw.random() < chance]
        return {name: float(draw.uniform(least, most)) for name in named}

    limits = Limits(
        epochs=shares(0.7, 0.1, 1) or None,
        at_least=shares(0.4, 0.1, 0.7),
        at_most=shares(0.5, 0.05, 0.6),
        groups={"ab": ["a", "b"]},
        ratio={"c": {"d": [0.5, 1.0]}} if draw.random() < 0.3 else {},
    )
    run, every = 100, limits.bounds(DOMAINS)
    for name, passes in (limits.epochs or {}).items():
        row = np.isin(DOMAINS, limits.groups.get(name, [name])).astype(float)
        every.append(Bound(f"epochs.{name}", row, high=passes * 40 * row.sum() / run))
    try:
        limits.of_run(DOMAINS, [True] * 4, [40] * 4, run)
    except UserError as error:
        words = str(error).replace(",", "").split()
        named = [bound for bound in every if f"limits.{bound.label.split()[0]}" in words]
        assert named and conflict(named, np.ones(4, dtype=bool))
    else:
        assert not conflict(every, np.ones(4, dtype=bool))


def test_what_is_left_of_a_domain_lasts_to_the_end():
    run = Limits(epochs={"a": 2}).of_run(("a", "b"), [True, True], [10, 100], 100)
    assert run.polytope().upper.tolist() == [0.2, 1]
    # 60 sequences are drawn, 5 of them from a: 15 are left for 40.
    assert run.polytope(torch.tensor([5, 55])).upper.tolist() == [0.375, 1]
    assert run.polytope(torch.tensor([21, 39])).upper.tolist() == [0, 1]


def test_a_domain_that_is_drawn_more_than_a_resumed_runs_limits_allow_is_told():
    run = Limits(epochs={"a": 0.5}).of_run(("a", "b"), [True, True], [20, 100], 100)
    even = torch.full((2,), 0.5, dtype=torch.float64)
    run.check_resumed(even, np.array([12.0, 12.0]))  # as a multinomial draw may
    with pytest.raises(UserError, match=r"epochs.a 0.5 lets the run draw 10 .* drawn 30 already"):
        run.check_resumed(even, np.array([30.0, 30.0]))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"epochs": 4}, "epochs.a 4 .40 of the run's 1,000 sequences. and limits.epochs.b 4"),
        (
            {"epochs": {"a": 1}, "at_least": {"a": 0.5}},
            "at_least.a 0.5 and limits.epochs.a 1 .10 of the run's 1,000",
        ),
        ({"epochs": {"ab": 1}, "groups": {"ab": ["a", "b"]}}, "epochs.ab 1"),
    ],
)
def test_too_little_text_is_told(limits, words):
    with pytest.raises(UserError, match=words):
        Limits(**limits).of_run(("a", "b"), [True, True], [10, 10], 1000)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"at_least": {"a": 0.6}, "at_most": {"a": 0.5}},
            "at_least.a 0.6 and limits.at_most.a 0.5",
        ),
        ({"at_least": {"a": 0.6, "b": 0.6}}, "at_least.a 0.6 and limits.at_least.b 0.6"),
        ({"at_least": {"c": 0.6}}, r"limits.at_least.c asks for c, which is never drawn"),
        ({"at_most": {"book": 0.5}}, "limits.at_most names 'book'"),
        ({"at_most": {"a": 1.5}}, "limits.at_most.a is 1.5: give a share from 0 to 1"),
        ({"epochs": -1}, "limits.epochs is -1"),
        ({"epochs": {"a": float("nan")}}, "limits.epochs.a is nan"),
        ({"groups": {"a": ["a", "b"]}}, "limits.groups.a has the name of a domain"),
        ({"groups": {"g": ["a", "a"]}}, "limits.groups.g"),
        ({"ratio": {"a": {"b": [3, 2]}}}, r"limits.ratio.a.b is \[3, 2\]"),
        ({"ratio": {"a": {"b": [3]}}}, r"limits.ratio.a.b is \[3\]"),
        ({"projection": "l1"}, "limits.projection"),
    ],
)
def test_what_is_wrong_is_told_before_a_corpus_is_prepared(limits, words):
    with pytest.raises(UserError, match=words):
        Limits(**limits).check(("a", "b", "c"), unseen=("c",))


def test_epochs_need_a_length():
    with pytest.raises(UserError, match=r"limits.epochs needs a run's length"):
        Limits(epochs=1).of_run(("a",), [True], [10], 0)


def test_prices_are_kept_at_a_resume():
    run = Limits(at_most={"a": 0.2}).of_run(("a", "b"), [True, True], [10, 10], 100)
    mixer = Stratified()
    mixer.setup(("a", "b"), (90, 90), 4, limits=run)
    assert mixer.sampling_weights.tolist() == pytest.approx([0.2, 0.8])
    assert mixer.prices["at_most.a 0.2"] > 0
    resumed = Stratified()
    resumed.setup(("a", "b"), (90, 90), 4, limits=run)
    resumed.prices = {}
    resumed.load_state_dict(mixer.state_dict())
    assert resumed.prices == mixer.prices


@pytest.mark.parametrize(
    "limits",
    [
        {"at_least": {"c": 0.1}},
        {"at_least": {"cd": 0.1}, "groups": {"cd": ["c", "d"]}},
        {"ratio": {"a": {"c": 2}}},
        {"ratio": {"c": {"a": [0.5, 2]}}},
    ],
)
def test_limits_that_ask_for_what_is_never_drawn_are_refused(limits):
    """A ratio to an unseen domain once kept its other side at 0 without a word."""
    with pytest.raises(UserError, match="never drawn: leave the limit out"):
        Limits(**limits).check(["a", "b", "c", "d"], unseen=["c", "d"])
    Limits(**limits).check(["a", "b", "c", "d"])
