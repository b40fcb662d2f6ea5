"""Invariants 1 to 4 of the sampler: weights are followed, nothing is lost or signals twice."""

import hashlib
import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dograph.data.epoch_order import EpochOrder
from dograph.data.sampler import MixtureSampler, stratified_counts
from dograph.errors import UserError


@st.composite
def simplex(draw, size=None):
    count = size or draw(st.integers(1, 12))
    raw = draw(arrays(np.float64, count, elements=st.floats(0, 1)))
    return raw / raw.sum() if raw.sum() > 1e-3 else np.full(count, 1 / count)


def sampler(**options):
    defaults = {
        "chunk_lengths": [[5, 3], [20], [7, 7, 1]],
        "weights": [0.2, 0.5, 0.3],
        "batch_size": 8,
        "seed": 3,
    }
    return MixtureSampler(**{**defaults, **options})


@given(weights=simplex(), batch_size=st.integers(1, 64))
@settings(max_examples=150, deadline=None)
def test_stratified_totals_stay_within_one_sequence_while_weights_stand(weights, batch_size):
    credit = np.zeros(len(weights))
    total = np.zeros(len(weights))
    for batch in range(1, 40):
        counts = stratified_counts(credit, weights, batch_size)
        assert counts.sum() == batch_size
        assert counts.min() >= 0
        assert not counts[weights == 0].any()
        total += counts
        assert np.abs(total - batch * batch_size * weights).max() < 1 + 1e-6


@given(data=st.data(), size=st.integers(2, 8), batch_size=st.integers(1, 32))
@settings(max_examples=60, deadline=None)
def test_stratified_follows_moving_weights(data, size, batch_size):
    credit, owed, total = np.zeros(size), np.zeros(size), np.zeros(size)
    for _ in range(12):
        weights = data.draw(simplex(size))
        counts = stratified_counts(credit, weights, batch_size)
        assert counts.sum() == batch_size
        assert counts.min() >= 0
        owed += weights * batch_size
        total += counts
    # Weights that jump can make more fall due at once than a batch holds: then a domain may
    # wait longer, by at most one sequence for every other domain.
    assert np.abs(owed - total).max() <= size


def test_multinomial_shares_are_within_sampling_error():
    weights = np.array([0.1, 0.6, 0.3])
    draws = islice(iter(sampler(draw="multinomial", weights=weights, batch_size=50)), 400)
    counts = Counter(domain for batch in draws for domain, _ in batch)
    shares = np.array([counts[s] for s in range(3)]) / 20000
    assert np.abs(shares - weights).max() < 5 * np.sqrt(0.25 / 20000)


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
@settings(max_examples=60, deadline=None)
def test_each_epoch_passes_every_sequence_once_in_a_new_order(lengths):
    order = EpochOrder(lengths, seed=1, domain=0)
    first = [order.next() for _ in range(sum(lengths))]
    second = [order.next() for _ in range(sum(lengths))]
    assert sorted(first) == sorted(second) == list(range(sum(lengths)))
    assert order.epoch == 1


def test_orders_differ_between_domains_epochs_and_seeds():
    def draws(seed, domain):
        order = EpochOrder([500], seed, domain)
        return [order.next() for _ in range(1000)]

    base = draws(0, 0)
    assert base[:500] != base[500:]
    assert base != draws(0, 1)
    assert base != draws(1, 0)
    assert base == draws(0, 0)


def test_a_domain_without_sequences_is_refused():
    with pytest.raises(UserError, match="no whole sequence"):
        EpochOrder([0, 0], 0, 0)


def test_new_weights_hold_exactly_lookahead_batches_later():
    draws = sampler(weights=[1.0, 0.0, 0.0], lookahead=3)
    batches = iter(draws)
    next(batches)
    draws.mark_trained()
    draws.set_weights([0.0, 1.0, 0.0])
    domains = [{domain for domain, _ in next(batches)} for _ in range(5)]
    assert domains == [{0}, {0}, {0}, {1}, {1}]


@pytest.mark.parametrize("prefetched", [1, 2, 4])
def test_prefetching_changes_neither_what_is_drawn_nor_the_weights_shown(prefetched):
    def run(ahead):
        draws = sampler(lookahead=4)
        batches = iter(draws)
        queue = [next(batches) for _ in range(ahead)]
        trained = []
        for step in range(30):
            queue.append(next(batches))
            draws.mark_trained()
            trained.append((queue.pop(0), draws.weights.tolist()))
            draws.set_weights(np.random.default_rng(step).dirichlet([1, 1, 1]))
        return trained

    assert run(0) == run(prefetched)


def test_the_weights_shown_are_those_of_the_batch_last_trained_on():
    draws = sampler(weights=[1.0, 0.0, 0.0], lookahead=3)
    batches = iter(draws)
    for _ in range(3):
        next(batches)
    draws.set_weights([0.0, 1.0, 0.0])
    shown = []
    for _ in range(5):
        next(batches)
        draws.mark_trained()
        shown.append(draws.weights.argmax())
    assert shown == [0, 0, 0, 1, 1]


def test_prefetching_beyond_lookahead_is_refused():
    draws = sampler(lookahead=1)
    batches = iter(draws)
    for _ in range(4):
        next(batches)
    with pytest.raises(UserError, match="lookahead"):
        draws.set_weights([1, 0, 0])


@given(
    stop=st.integers(0, 25),
    ahead=st.integers(0, 3),
    draw=st.sampled_from(["stratified", "multinomial"]),
)
@settings(max_examples=40, deadline=None)
def test_a_restored_sampler_goes_on_as_if_never_stopped(stop, ahead, draw):
    def steps(draws, batches, queue, first, last):
        signals = []
        for step in range(first, last):
            queue.append(next(batches))
            signals.append(queue.pop(0))
            draws.mark_trained()
            draws.set_weights(np.random.default_rng(step).dirichlet([1, 1, 1]))
        return signals

    def fresh():
        draws = sampler(draw=draw)
        batches = iter(draws)
        return draws, batches, [next(batches) for _ in range(ahead)]

    whole = steps(*fresh(), 0, 30)
    draws, batches, queue = fresh()
    before = steps(draws, batches, queue, 0, stop)
    state = json.loads(json.dumps(draws.state_dict()))
    resumed = sampler(draw=draw)
    resumed.load_state_dict(state)
    assert (resumed.weights == draws.weights).all()
    after = steps(resumed, iter(resumed), [], stop, 30)
    assert before + after == whole
    assert resumed.realised.sum() == 30 * 8


def test_ranks_share_one_global_batch():
    whole = list(islice(iter(sampler()), 10))
    halves = [list(islice(iter(sampler(rank=rank, world_size=2)), 10)) for rank in range(2)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole


def test_a_batch_that_does_not_divide_among_ranks_is_refused():
    with pytest.raises(UserError, match="does not divide"):
        sampler(batch_size=7, world_size=2)


@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_drawing_ahead_changes_no_batch(count, position, seed):
    """A step's batches may be looked at before the loader hands them out."""

    def make():
        return MixtureSampler([[40], [30, 20], [10]], [0.2, 0.5, 0.3], 8, seed)

    plain, looked = make(), make()
    batches = iter(plain)
    others = iter(looked)
    expected = [next(batches) for _ in range(position + count)]
    found = []
    for index in range(position + count):
        if index == position:
            assert looked.upcoming(count) == expected[position:]
        found.append(next(others))
        looked.mark_trained()
    assert found == expected


@pytest.mark.parametrize(
    ("draw", "digest", "realised"),
    [
        ("stratified", "1605d739fb9ec3ed9ec986979cec8cf2", [1263, 1241, 696]),
        ("multinomial", "fd823f78f39b8252dd77a6018774277a", [1271, 1260, 669]),
    ],
)
def test_the_same_seed_draws_the_same_for_ever(draw, digest, realised):
    """What was drawn once; a change here breaks the going on of every run there is."""
    draws = MixtureSampler(
        [[40, 25], [300], [7, 7, 1]],
        [0.2, 0.5, 0.3],
        batch_size=16,
        seed=11,
        draw=draw,
        reserved=[[3, 44], [], [0]],
    )
    batches, signals = iter(draws), []
    for step in range(200):
        signals.append(next(batches))
        draws.mark_trained()
        moving = np.random.default_rng(step).dirichlet(np.ones(3))
        draws.set_weights(moving if step % 3 else np.eye(3)[step % 2])
    assert draws.realised.tolist() == realised
    assert hashlib.sha256(json.dumps(signals).encode()).hexdigest()[:32] == digest


@pytest.mark.parametrize("credit", [2.0**31, 1.0, float("nan")])
def test_a_credit_that_no_sampler_has_is_refused(credit):
    """Credits sum to 0; two billion would be drawn down one sequence at a time, for hours."""
    sampler = MixtureSampler([[4], [4]], np.array([0.5, 0.5]), 2, seed=0)
    state = sampler.state_dict()
    state["credit"][1] += credit
    with pytest.raises(UserError, match=r"sampler\.credit"):
        sampler.load_state_dict(state)
