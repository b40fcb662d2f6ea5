"""DoReMi's update against hand-computed cases, its identities, and its loss weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.mixers import LOSS, BatchSignals, DoReMi, DoReMiOnline
from dograph.mixers.doremi import exponentiated_gradient

DOMAINS = ("books", "code", "web")
VOCABULARY = 100


def ready(mixer=None, domains=DOMAINS):
    mixer = mixer if mixer is not None else DoReMi("reference.ckpt")
    mixer.setup(domains, [1] * len(domains), 4, VOCABULARY)
    return mixer


def signals(domain, excess, step=0, **more):
    domain = torch.tensor(domain)
    return BatchSignals(
        step, domain, torch.ones(len(domain)), excess_loss=torch.tensor(excess), **more
    )


def shares(raw):
    values = torch.tensor(raw, dtype=torch.float64)
    return values / values.sum()


def test_two_domains_by_hand():
    # e^{ln 2} = 2 against e^0 = 1: (1/2·2, 1/2·1)/(3/2) = (2/3, 1/3), then 10 % uniform.
    found = exponentiated_gradient(
        shares([1, 1]), torch.tensor([math.log(2), 0.0]).double(), 1, 0.1
    )
    assert found.tolist() == pytest.approx([0.9 * 2 / 3 + 0.05, 0.9 / 3 + 0.05])


def test_three_domains_and_two_steps_by_hand():
    mixer = ready(DoReMi("reference.ckpt", step_size=2.0, smoothing=0.0))
    first = [math.log(4) / 2, 0.0, 0.0]  # of books, code, web; books has two sequences
    batch = signals([0, 0, 1, 2], [first[0] - 0.1, first[0] + 0.1, 0.0, 0.0])
    assert mixer.step(batch)
    assert mixer.weights.tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6], rel=1e-5)
    # Books are absent now and keep their weight; of the others' third web moves by 3.
    assert mixer.step(signals([1, 2], [0.0, math.log(3) / 2], step=1))
    assert mixer.weights.tolist() == pytest.approx([8 / 12, 1 / 12, 3 / 12], rel=1e-5)
    average = [(4 / 6 + 8 / 12) / 2, (1 / 6 + 1 / 12) / 2, (1 / 6 + 3 / 12) / 2]
    assert mixer.average_weights.tolist() == pytest.approx(average, rel=1e-5)


def test_a_domain_that_never_came_keeps_its_weight_and_shows_no_score():
    mixer = ready(DoReMi("reference.ckpt", smoothing=0.1))
    mixer.step(signals([0, 1], [math.log(3), 0.0]))
    # Of two thirds: 0.9 · (3/4, 1/4) + 0.1 · (1/2, 1/2).
    assert mixer.weights.tolist() == pytest.approx([0.725 * 2 / 3, 0.275 * 2 / 3, 1 / 3])
    assert mixer.diagnostics() == pytest.approx(
        {"excess_loss/books": math.log(3), "excess_loss/code": 0.0}
    )


def test_a_prior_of_0_stays_0():
    mixer = ready(DoReMi("reference.ckpt", prior={"books": 1, "code": 0, "web": 1}))
    for step in range(5):
        mixer.step(signals([0, 2], [1.0, 0.0], step))
    assert mixer.weights[1] == 0 and mixer.average_weights[1] == 0
    with pytest.raises(UserError, match=r"prior.code is 0, but floor is 0.1 and would draw it"):
        ready(DoReMiOnline(prior={"books": 1, "code": 0, "web": 1}))


def test_a_batch_of_domains_of_weight_0_counts_nothing():
    prior = {"books": 1, "code": 0, "web": 1}
    mixer = ready(DoReMi("reference.ckpt", 1.0, 0.0, "repository", prior))
    assert mixer.checked_loss_weights(signals([1, 1], [0.5, 0.5])).tolist() == [0, 0]


def test_the_proxy_keeps_drawing_as_before():
    mixer = ready(DoReMi("reference.ckpt", prior={"books": 2, "code": 1, "web": 1}))
    mixer.step(signals([0, 1, 2], [0.0, 3.0, 0.0]))
    assert mixer.weights[1] > 0.5
    assert mixer.sampling_weights.tolist() == [0.5, 0.25, 0.25]


def test_losses_count_by_the_new_weights_as_in_the_paper():
    mixer = ready(DoReMi("reference.ckpt", smoothing=0.0))
    batch = signals([0, 0, 1, 2], [math.log(2), math.log(2), 0.0, 0.0])
    weights = mixer.checked_loss_weights(batch)
    assert weights.tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 4])  # α = (1/2, 1/4, 1/4)
    mixer.step(batch)
    assert mixer.weights.tolist() == pytest.approx([1 / 2, 1 / 4, 1 / 4])
    # An absent domain leaves its share out.
    weights = ready(DoReMi("reference.ckpt", step_size=0.0)).checked_loss_weights(
        signals([0, 0, 1], [0.0] * 3)
    )
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3])


def test_losses_count_by_tokens_over_sampling_as_in_the_repository():
    prior = {"books": 2, "code": 1, "web": 1}
    mixer = ready(DoReMi("reference.ckpt", 0.0, 0.0, "repository", prior))
    # α = p: every sequence counts alike, however the draw came out.
    assert mixer.checked_loss_weights(signals([0, 1, 1, 2], [0.0] * 4)).tolist() == pytest.approx(
        [0.25] * 4
    )
    mixer.weights.copy_(torch.tensor([0.25, 0.5, 0.25]))  # α/p = (1/2, 2, 1)
    weights = mixer.checked_loss_weights(signals([0, 1, 1, 2], [0.0] * 4))
    assert weights.tolist() == pytest.approx([0.5 / 5.5, 2 / 5.5, 2 / 5.5, 1 / 5.5])


@pytest.mark.parametrize("normalise", ["paper", "repository"])
def test_micro_batches_are_weighed_by_the_whole_step(normalise):
    mixer = ready(DoReMi("reference.ckpt", 0.0, 0.0, normalise))
    mixer.weights.copy_(torch.tensor([0.5, 0.3, 0.2]))
    domain = torch.tensor([0, 1, 1, 2, 2, 2])
    whole = mixer.checked_loss_weights(signals(domain.tolist(), [0.0] * 6))
    parts = [
        mixer.checked_loss_weights(signals(part.tolist(), [0.0] * 3, step_domain=domain)) / 2
        for part in domain.view(2, 3)
    ]
    assert torch.allclose(torch.cat(parts), whole)


simplex = st.lists(st.floats(0.01, 1), min_size=2, max_size=6).map(shares)


@given(simplex, st.data(), st.floats(0, 5), st.floats(0, 0.5))
@settings(max_examples=80, deadline=None)
def test_identities(weights, data, step_size, smoothing):
    size = len(weights)
    scores = torch.tensor(data.draw(st.lists(st.floats(0, 8), min_size=size, max_size=size)))
    scores = scores.double()
    found = exponentiated_gradient(weights, scores, step_size, smoothing)
    assert found.sum().item() == pytest.approx(1)
    assert found.min() >= smoothing / size - 1e-12
    order = torch.tensor(data.draw(st.permutations(range(size))))
    permuted = exponentiated_gradient(weights[order], scores[order], step_size, smoothing)
    assert torch.allclose(permuted, found[order])
    # Scores matter up to a constant, and nothing moves without differences.
    assert torch.allclose(exponentiated_gradient(weights, scores + 3, step_size, smoothing), found)
    assert torch.allclose(exponentiated_gradient(weights, torch.ones(size).double(), 1, 0), weights)


@given(st.lists(st.floats(0, 5), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_larger_excess_loss_never_ends_with_the_smaller_weight(excess):
    mixer = ready()
    for step in range(3):
        mixer.step(signals([0, 1, 2], excess, step))
    weights = mixer.weights.tolist()
    for first in range(3):
        for second in range(3):
            if excess[first] >= excess[second]:
                assert weights[first] >= weights[second] - 1e-9


def test_online_weights_go_live_and_losses_count_alike():
    mixer = ready(DoReMiOnline(step_size=1.0, smoothing=0.0, floor=0.3))
    batch = BatchSignals(0, torch.tensor([0, 1, 2]), torch.tensor([math.log(2), 0.0, 0.0]))
    assert mixer.checked_loss_weights(batch).tolist() == pytest.approx([1 / 3] * 3)
    assert not mixer.acts(LOSS)
    mixer.step(batch)
    assert mixer.weights.tolist() == pytest.approx([0.1 + 0.35, 0.1 + 0.175, 0.1 + 0.175])
    assert torch.equal(mixer.sampling_weights, mixer.weights)


def test_online_with_a_reference_scores_the_excess():
    mixer = ready(DoReMiOnline("reference.ckpt", step_size=1.0, smoothing=0.0, floor=0.0))
    mixer.step(signals([0, 1, 2], [0.0, math.log(2), 0.0]))
    assert mixer.weights.tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 4])


@pytest.mark.parametrize(
    "build",
    [
        lambda: DoReMi("reference.ckpt", step_size=-1.0),
        lambda: DoReMi("reference.ckpt", smoothing=1.5),
        lambda: DoReMiOnline(floor=1.0),
    ],
)
def test_settings_out_of_range_are_refused(build):
    with pytest.raises(UserError):
        build()


def test_state_keeps_the_scores():
    mixer, other = ready(), ready()
    mixer.step(signals([0, 1], [1.0, 2.0]))
    other.load_state_dict(mixer.state_dict())
    later = signals([2], [0.5], step=1)
    mixer.step(later)
    other.step(later)
    assert torch.equal(mixer.weights, other.weights)
    assert torch.equal(mixer.average_weights, other.average_weights)
