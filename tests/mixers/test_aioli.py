"""Aioli against hand-computed cases and a transcription of its algorithm (Chen et al. 2024)."""

import math

import numpy as np
import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import Aioli, BatchSignals, HeldOutLoss
from dograph.mixers.aioli import gains, mixing_graph, probe_mixtures
from dograph.mixers.limits import Limits

DOMAINS = ("books", "code", "web")
SHORT = {"sweeps": 1, "probe_steps": 2, "round_steps": 12}


def ready(mixer, domains=DOMAINS, **more):
    mixer.setup(domains, [1] * len(domains), 4, **more)
    return mixer


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def trained(mixer, steps, losses, first=0):
    """Steps of made-up training; (S,) losses are a function of the steps done."""
    count = len(mixer.domains)
    for step in range(first, steps):
        signals = BatchSignals(step, torch.arange(4) % count, torch.ones(4))
        if mixer.needs_at(step, HeldOutLoss):
            signals.held_out_loss = tensor(losses(step + 1))
        mixer.step(signals)
    return mixer


def drawn(mixer, steps):
    """(steps, S) what the first steps were drawn by, in a run without a missed update."""
    return torch.stack([mixer.history[max(step - mixer.delay, 0)][1] for step in range(steps)])


def test_the_graph_by_hand():
    # Probes of 3/4 and 1/4: drops of the first domain are 3/4 a + 1/4 b and 1/4 a + 3/4 b.
    graph = tensor([[4.0, 0.0], [-4.0, 8.0]])
    drops = graph @ probe_mixtures(2, 0.75)
    assert drops.tolist() == [[3, 1], [-1, 5]]
    torch.testing.assert_close(mixing_graph(drops, probe_mixtures(2, 0.75)), graph)


def test_gains_by_hand():
    graph = tensor([[3.0, 1.0], [1.0, 3.0], [9.0, 9.0]])
    assert gains(graph, tensor([1, 1, 0])).tolist() == [0.5, 0.5]
    assert gains(graph, tensor([1.5, 0.5, 0])).tolist() == [0.625, 0.375]
    assert gains(graph - 2, tensor([1, 1, 0])).tolist() == [0.5, 0.5]  # (2, 0; 0, 2) / 4
    assert gains(graph - 9, tensor([0, 0, 1])).tolist() == [0.5, 0.5]  # nothing falls


def test_a_round_by_hand():
    """Code alone lowers losses, its own by 1 nat a step: all gain is code's."""
    mixer = ready(Aioli(**SHORT, share=1.0, rate=math.log(2)), delay=3)
    code = []  # steps of pure code, by the plan

    def losses(done):
        pure = drawn(mixer, done)[:, 1] == 1
        code.append(int(pure.sum()))
        return [5.0, 9.0 - pure.sum().item(), 5.0]

    trained(mixer, 16, losses)
    assert code[0] == 0 and code[-1] == 2  # one probe of two steps
    assert mixer.graph.tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 0]]
    assert mixer.mixture.tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 4])


def transcribed(law, options, delay, rounds, orders):
    """Weights after each round, by the public algorithm; each probe's drop is known at its end."""
    count = len(law[0])
    weights = gained = None
    start, found = np.ones(count) / count, []
    for number in range(rounds):
        graph = np.zeros((count, count))
        for probed in orders[number]:
            mixture = np.full(count, (1 - options["share"]) / (count - 1))
            mixture[probed] = options["share"]
            graph[:, probed] += law[number] @ mixture * options["probe_steps"]
        graph /= options["sweeps"]
        smoothing = np.full((count, count), (1 - options["share"]) / (count - 1))
        np.fill_diagonal(smoothing, options["share"])
        graph = np.stack([np.linalg.solve(smoothing, row) for row in graph])
        if graph.min() < 0:
            graph -= graph.min()
        graph /= graph.sum()
        if options["ema"] is None:
            weights = (start if weights is None else weights) * np.exp(
                options["rate"] * graph.sum(axis=0)
            )
        else:
            gained = (
                graph if gained is None else (1 - options["ema"]) * graph + options["ema"] * gained
            )
            weights = start * np.exp(options["rate"] * gained.sum(axis=0))
        weights = weights / weights.sum()
        found.append(weights)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_weights_agree_with_their_transcription_on_random_inputs(seed):
    """Losses fall by a random linear law of what each step was drawn by; 25 runs of two rounds."""
    draw = np.random.default_rng(seed)
    for _ in range(25):
        count, delay = int(draw.integers(2, 5)), int(draw.integers(0, 5))
        options = {
            "sweeps": int(draw.integers(1, 3)),
            "probe_steps": int(draw.integers(1, 3)),
            "share": draw.uniform(1.05 / count, 1),
            "rate": draw.uniform(0.1, 3),
            "ema": draw.choice([None, 0.1, 0.5]),
        }
        taken = options["sweeps"] * options["probe_steps"] * count
        options["round_steps"] = every = taken + delay + int(draw.integers(1, 3))
        names = tuple(f"domain_{index}" for index in range(count))
        mixer = ready(Aioli(**options), names, delay=delay)
        law = draw.normal(0.5, 1, (2, count, count))
        losses = [draw.uniform(1, 9, count)]
        orders, weights = [], []
        for step in range(mixer.first + 2 * every):
            shares = mixer.history[max(step - delay, 0)][1].numpy()
            losses.append(losses[-1] - law[int(step >= mixer.first + every)] @ shares)
            trained(mixer, step + 1, losses.__getitem__, first=step)
            if mixer.measured == step + 1 and step + 1 - mixer.first in (taken, every + taken):
                orders.append(mixer.order.tolist())
                weights.append(mixer.mixture.numpy().copy())
        expected = transcribed(law, options, delay, 2, orders)
        np.testing.assert_allclose(weights, expected, atol=1e-6)
        rest = drawn(mixer, mixer.first + every)[mixer.first + taken + delay :].numpy()
        np.testing.assert_allclose(rest, [expected[0]] * len(rest), atol=1e-6)


def test_each_round_probes_every_domain_in_a_new_order_as_often_as_asked():
    mixer = ready(Aioli(sweeps=3, probe_steps=1, round_steps=20), delay=1)
    orders = []
    for number in range(6):
        trained(
            mixer,
            2 + 20 * number + 12,
            lambda done: [1.0] * 3,
            first=20 * number and 14 + 20 * (number - 1),
        )
        orders.append(mixer.order.tolist())
    assert all(sorted(order[at : at + 3]) == [0, 1, 2] for order in orders for at in (0, 3, 6))
    assert len(set(map(tuple, orders))) > 1


def test_the_order_is_the_seeds_whatever_else_is_drawn():
    def order(others, seed=0):
        torch.manual_seed(seed)
        mixer = ready(Aioli(sweeps=3, probe_steps=1, round_steps=20), delay=1)
        torch.rand(others)
        return trained(mixer, 12, falling).order.tolist()

    assert order(others=0) == order(others=5)
    assert len({tuple(order(others=0, seed=seed)) for seed in range(3)}) > 1


def falling(done):
    return [9 - 0.1 * done, 8 - 0.2 * math.sqrt(done), 7 + 0.01 * done]


def test_a_round_with_a_step_that_told_nothing_changes_nothing():
    """Training skips the mixer at steps that are not finite."""
    whole = trained(ready(Aioli(**SHORT), delay=2), 15, falling)
    assert whole.gains is not None
    for missed in (0, 3, 4, 8):  # before the first probe's mixture is given out, at a probe's end …
        mixer = trained(ready(Aioli(**SHORT), delay=2), missed, falling)
        trained(mixer, 15, falling, first=missed + 1)
        assert mixer.gains is None
        trained(mixer, 27, falling, first=15)
        assert mixer.gains is not None  # by the next round


def test_within_limits_the_law_is_of_what_the_probes_drew():
    """Losses fall by a linear law of what is drawn: the probes that limits cut find it."""
    law = torch.tensor([[3.0, 1, 2], [1, 4, 1], [2, 1, 5]], dtype=torch.float64) / 10
    limits = Limits(at_most={"web": 0.2}).of_run(DOMAINS, [True] * 3, [1000] * 3, 1000)
    mixer = ready(Aioli(**SHORT), delay=2, limits=limits)
    trained(mixer, 15, lambda done: [9 - fall for fall in law @ drawn(mixer, done).sum(dim=0)])
    torch.testing.assert_close(mixer.graph, law * SHORT["probe_steps"])
    assert drawn(mixer, 15)[:, 2].max() == pytest.approx(0.2)


def test_losses_that_are_not_finite_change_nothing():
    mixer = trained(ready(Aioli(**SHORT)), 12, lambda done: [math.nan, 1.0, 1.0])
    assert mixer.gains is None and mixer.mixture.tolist() == pytest.approx([1 / 3] * 3)


def test_with_a_target_its_losses_alone_count():
    mixer = ready(Aioli(**SHORT, rate=50.0), target="web", unseen=["web"])
    assert mixer.weights.tolist() == [0.5, 0.5, 0]

    def losses(done):
        return [9 - 3 * done, 9 - 3 * done, 9 - drawn(mixer, done)[:, 1].sum().item()]

    trained(mixer, 12, losses)
    assert mixer.mixture[1] > 0.99 and mixer.mixture[2] == 0
    assert (drawn(mixer, 12)[:, 2] == 0).all()


def test_a_prior_of_zero_stays_zero_and_is_not_probed():
    mixer = ready(Aioli(**SHORT, prior={"books": 3, "code": 1, "web": 0}))
    trained(mixer, 12, falling)
    assert (drawn(mixer, 12)[:, 2] == 0).all() and mixer.graph.shape == (3, 2)
    gained = mixer.gains.exp()
    expected = gained * tensor([3, 1]) / (gained @ tensor([3, 1]))
    assert mixer.mixture[:2].tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("until", [2, 4, 7, 11, 17])
def test_state_continues_exactly(until, tmp_path):
    """Before, between and in the middle of probes, and in the second round."""
    torch.manual_seed(until)
    part = trained(ready(Aioli(**SHORT), delay=2), until, falling)
    torch.save(part.state_dict(), tmp_path / "state")
    whole = trained(part, 30, falling, first=until)
    state = torch.load(tmp_path / "state", weights_only=True)
    torch.manual_seed(until + 1)
    other = ready(Aioli(**SHORT), delay=2)
    other.load_state_dict(state)
    trained(other, 30, falling, first=until)
    for (step, weights), (other_step, others) in zip(whole.history, other.history, strict=True):
        assert step == other_step and torch.equal(weights, others)
    assert torch.equal(whole.mixture, other.mixture) and whole.gains is not None


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"sweeps": 0}, {}, r"mixer\.init_args\.sweeps"),
        ({"probe_steps": 0}, {}, r"mixer\.init_args\.probe_steps"),
        ({"rate": 0.0}, {}, r"mixer\.init_args\.rate"),
        ({"ema": 1.0}, {}, r"mixer\.init_args\.ema"),
        ({"sequences": 0}, {}, r"mixer\.init_args\.sequences"),
        ({"start": -1}, {}, r"mixer\.init_args\.start"),
        ({"share": 1 / 3}, {}, r"share is 0\.333.*raise it above 1/3"),
        ({"round_steps": 63}, {"delay": 3}, "probes of 3 domains take 60 steps.*3 steps later"),
        ({}, {"unseen": ["code", "web"]}, "two or more"),
    ],
)
def test_settings_that_cannot_be_are_named(options, more, message):
    with pytest.raises(UserError, match=message):
        ready(Aioli(**options), **more)


def test_the_first_round_begins_once_its_mixtures_can_reach_the_draws():
    assert ready(Aioli(), delay=4).first == 5
    assert ready(Aioli(start=100), delay=4).first == 100
    assert ready(Aioli(start=100)).acts_from == 100 + 2 * 3 * 10
